#!/usr/bin/env bash
# Renders icon.svg into the committed icons; run it after a change of the drawing.
# Debian: apt-get install librsvg2-bin imagemagick icnsutils
set -euo pipefail
cd "$(dirname "$0")"

rendered="$(mktemp -d)"
trap 'rm -r "$rendered"' EXIT
for size in 16 32 48 128 256 512; do
  rsvg-convert --width "$size" --height "$size" --output "$rendered/$size.png" icon.svg
done

for size in 48 128 256; do
  cp "$rendered/$size.png" "icon-$size.png"
done
# Stripped of dates, so that the same drawing gives the same bytes.
convert "$rendered"/{16,32,48,256}.png -strip icon.ico
# Apple scales what lies between.
png2icns icon.icns "$rendered"/{16,32,128,256,512}.png
