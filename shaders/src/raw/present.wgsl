// One picture of a batch, drawn from the buffer that a network left it in: −1…1 to 8 bits, by the
// rounding of the network's authors. The target has the picture's size, so a fragment is a pixel.

struct Picture {
    // Steps in the buffer from one value to the next, in values.
    batch: u32,
    channel: u32,
    row: u32,
    column: u32,
    // Which picture of the batch.
    index: u32,
    // 127.5 or 128: what 0 becomes before the fraction is cut off.
    grey: f32,
}

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<uniform> picture: Picture;

// A triangle that covers the target.
@vertex
fn cover(@builtin(vertex_index) corner: u32) -> @builtin(position) vec4<f32> {
    let x = f32(corner & 1u) * 4.0 - 1.0;
    let y = f32(corner >> 1u) * 4.0 - 1.0;
    return vec4<f32>(x, y, 0.0, 1.0);
}

@fragment
fn shade(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let at = vec2<u32>(position.xy);
    let first = picture.index * picture.batch + at.y * picture.row + at.x * picture.column;
    let value = vec3<f32>(
        values[first],
        values[first + picture.channel],
        values[first + 2u * picture.channel],
    );
    let byte = floor(clamp(127.5 * value + picture.grey, vec3<f32>(0.0), vec3<f32>(255.0)));
    return vec4<f32>(byte / 255.0, 1.0);
}
