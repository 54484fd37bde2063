//! A step's `config` table, and errors about it that a user can act on.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// The configuration of a plugin that takes none: any key is an error.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Reads the configuration, a JSON object. An error names the key, and no line and column: the
/// user wrote TOML and has never seen this JSON.
pub fn parse<T: DeserializeOwned>(config: &str) -> Result<T> {
    let value: serde_json::Value = serde_json::from_str(config)?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner().to_string();
        // Unknown and missing keys are named by the error itself.
        if path == "." || error.contains(&format!("`{path}`")) {
            Error::from(format!("config: {error}"))
        } else {
            Error::from(format!("config.{path}: {error}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        min_age: u32,
        country: String,
        #[serde(default)]
        limits: Vec<u8>,
    }

    fn check<T: DeserializeOwned + Debug>(config: &str, expected: &str) {
        assert_eq!(parse::<T>(config).unwrap_err().to_string(), expected);
    }

    #[test]
    fn errors_name_the_key() {
        let expected = Config {
            min_age: 0,
            country: "DE".to_owned(),
            limits: Vec::new(),
        };
        assert_eq!(parse::<Config>(r#"{"country": "DE"}"#).unwrap(), expected);
        check::<Config>(
            r#"{"min_age": "old", "country": "DE"}"#,
            r#"config.min_age: invalid type: string "old", expected u32"#,
        );
        check::<Config>(
            r#"{"limits": [1, 999], "country": "DE"}"#,
            "config.limits[1]: invalid value: integer `999`, expected u8",
        );
        check::<Config>("{}", "config: missing field `country`");
        check::<Config>(
            r#"{"min_agee": 1, "country": "DE"}"#,
            "config: unknown field `min_agee`, expected one of `min_age`, `country`, `limits`",
        );
        check::<NoConfig>(
            r#"{"min_age": 1}"#,
            "config: unknown field `min_age`, there are no fields",
        );
    }
}
