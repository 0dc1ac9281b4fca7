//! The text of a configuration: where it is no TOML, and values that no key has.

use anyhow::{Result, anyhow, bail};
use toml::Value;

/// How to write a path of Windows: in double quotes `\t` is a tab, and `\d` nothing.
const PATHS: &str = "write / or use single quotes";

/// Reads a text as TOML.
///
/// # Errors
///
/// * The text is not TOML; with line and column.
/// * A number is not finite, or a text has a control character; with the key.
pub fn parse(text: &str) -> Result<Value> {
    let table: Value = toml::from_str(text).map_err(|error| located(text, &error))?;
    refuse_unusable(&table, "")?;
    Ok(table)
}

/// What is wrong with a text, and where.
fn located(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let problem = error.message();
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return anyhow!("{problem}");
    };
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let (line, column) = (before.matches('\n').count() + 1, before[start..].chars().count() + 1);
    let there = text[start..].lines().next().unwrap_or_default();
    let hint = match there.contains('"') && there.contains('\\') {
        true => format!("; \\ begins an escape in double quotes: {PATHS}"),
        false => String::new(),
    };
    anyhow!("line {line}, column {column}: {problem}{hint}")
}

/// Refuses numbers that JSON does not have, and that would be read as none, and texts that were meant as paths of
/// Windows.
fn refuse_unusable(value: &Value, key: &str) -> Result<()> {
    match value {
        Value::Float(number) if !number.is_finite() => {
            bail!("{key} = {number} is not a finite number")
        }
        Value::String(text) if text.contains(char::is_control) => {
            bail!("{key} = {text:?} has a control character; {PATHS}")
        }
        Value::Table(table) => table.iter().try_for_each(|(name, value)| {
            let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            refuse_unusable(value, &below)
        }),
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(index, value)| refuse_unusable(value, &format!("{key}[{index}]")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    #[test]
    fn what_is_no_toml_is_located() {
        let said = refused("[run]\nsteps = 1\nbatch = = 4\n");
        assert!(said.starts_with("line 3, column ") && !said.contains(PATHS), "{said}");
        let said = refused("[data]\nimages = \"D:\\data\"\n");
        assert!(said.starts_with("line 2, column ") && said.ends_with(PATHS), "{said}");
        let said = refused("images = \"D:\\train\\\"\nteacher = 'D:\\x'");
        assert!(said.starts_with("line 1, column ") && said.ends_with(PATHS), "{said}");
        let said = refused("images = 'D:\\data' and\n");
        assert!(said.starts_with("line 1, column ") && !said.contains(PATHS), "{said}");
    }

    #[test]
    fn a_path_of_windows_is_no_text_with_tabs() {
        assert_eq!(
            refused("[data]\nimages = \"D:\\train\\new\""),
            "data.images = \"D:\\train\\new\" has a control character; write / or use single quotes"
        );
        assert!(
            refused("[[ema]]\nnames = [\"a\", \"b\\u0007\"]").starts_with("ema[0].names[1] = ")
        );
        for path in ["'D:\\train\\new'", "\"D:/train/new\"", "\"D:\\\\train\\\\new\""] {
            let read = parse(&format!("images = {path}")).expect(path);
            let images = read["images"].as_str().map(|images| images.replace('\\', "/"));
            assert_eq!(images.as_deref(), Some("D:/train/new"));
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused() {
        for number in ["nan", "inf", "-inf"] {
            let said = refused(&format!("[optimizer]\nlr = {number}"));
            assert!(
                said.starts_with("optimizer.lr = ") && said.ends_with("finite number"),
                "{said}"
            );
        }
    }
}
