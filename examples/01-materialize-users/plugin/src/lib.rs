//! Keeps the latest event of each user: the output's key is the user's id, its value the event with
//! the name in upper case and, where the pipeline file grants a table `countries`, the country's
//! name. Users below a minimum age are dropped; what isn't such an event fails.

#![deny(unsafe_code)]

use millstream_plugin::{
    Lookup, Outputs, Record, Result, Text, Transform, lookup_if_granted, plugin,
};
use serde::{Deserialize, Serialize};

plugin!(Users);

struct Users {
    config: Config,
    countries: Option<Lookup>,
    /// The latest name: one piece of memory for all of them.
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    min_age: u32,
}

#[derive(Deserialize, Serialize)]
struct Event<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    age: u32,
    #[serde(borrow)]
    country: Text<'a>,
    /// Looked up; whatever the event says is not taken over.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    country_name: Option<CountryName<'a>>,
    /// Milliseconds since 1970-01-01 UTC.
    ts: u64,
    #[serde(borrow)]
    email: Text<'a>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    plan: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
}

/// Null where the table has no such country.
type CountryName<'a> = Option<Text<'a>>;

/// An entry of `countries`; its key is the country's code.
#[derive(Deserialize)]
struct Country<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

impl Transform for Users {
    type Config = Config;

    const CONFIG_SCHEMA: Option<&'static str> = Some(
        r#"{
            "type": "object",
            "properties": { "min_age": { "type": "integer", "minimum": 0, "default": 0 } },
            "additionalProperties": false
        }"#,
    );

    fn new(config: Config) -> Result<Self> {
        Ok(Users {
            config,
            countries: lookup_if_granted("countries"),
            name: String::new(),
        })
    }

    fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
        let mut event: Event<'_> = record.json()?;
        if event.id.is_empty() {
            return Err("`id` is empty".into());
        }
        if event.age < self.config.min_age {
            return Ok(());
        }
        let found = match &self.countries {
            Some(countries) => Some(countries.get(&event.country)?),
            None => None,
        };
        if let Some(found) = &found {
            let country = found.as_ref().map(|found| found.json::<Country<'_>>());
            event.country_name = Some(country.transpose()?.map(|country| country.name));
        }
        uppercase(&event.name, &mut self.name);
        event.name = self.name.as_str().into();
        out.emit().key(&event.id).json(&event)?;
        Ok(())
    }
}

fn uppercase(name: &str, upper: &mut String) {
    if name.is_ascii() {
        upper.clear();
        upper.push_str(name);
        upper.make_ascii_uppercase();
    } else {
        *upper = name.to_uppercase();
    }
}

#[cfg(test)]
mod tests {
    use millstream_plugin::testing::{Harness, Input, Table};
    use serde_json::{Value, json};

    use super::*;

    const ANNA: &str = r#"{"id":"u17","name":"Anna Groß","age":34,"country":"DE","ts":1700000000000,"email":"a@example.org"}"#;

    fn users(config: Value) -> Harness {
        Harness::new::<Users>(config).unwrap()
    }

    /// Anna's event with some fields changed; a null removes one.
    fn event(changes: Value) -> Input {
        let mut event: Value = serde_json::from_str(ANNA).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            event[key] = value.clone();
        }
        event
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        Input::json(&event)
    }

    fn check_failure(input: Input, expected: &str) {
        let processed = users(json!({})).process(&[input, Input::value(ANNA)]);
        assert_eq!(
            processed.records.len(),
            1,
            "the other record is not touched"
        );
        let [(0, reason)] = &processed.failures[..] else {
            panic!("{:?}", processed.failures)
        };
        assert!(reason.contains(expected), "{reason}");
    }

    #[test]
    fn the_id_becomes_the_key_and_the_name_is_in_upper_case() {
        let processed = users(json!({})).process(&[Input::new("some key", ANNA).at(5)]);
        let [user] = &processed.records[..] else {
            panic!("{processed:?}")
        };
        assert_eq!(user.key_text(), "u17");
        assert_eq!(user.text(), ANNA.replace("Anna Groß", "ANNA GROSS"));
        assert_eq!(user.timestamp, 5);
    }

    #[test]
    fn optional_fields_stay_and_unknown_ones_go() {
        let with = json!({"plan": "pro", "active": true, "shoe_size": 42});
        let processed = users(json!({})).process(&[event(with)]);
        let user = processed.records[0].json();
        assert_eq!(
            (&user["plan"], &user["active"]),
            (&json!("pro"), &json!(true))
        );
        assert_eq!(user.get("shoe_size"), None);
    }

    #[test]
    fn the_name_of_the_country_comes_from_the_table() {
        let countries = Table::new("countries")
            .with("DE", r#"{"name":"Germany","continent":"Europe"}"#)
            .with("CI", r#"{"name":"C\u00f4te d'Ivoire"}"#)
            .with("XX", r#"{"nom":"Germany"}"#);
        let mut users = Harness::with_tables::<Users>(json!({}), [countries]).unwrap();
        assert_eq!(users.needs().lookups, ["countries"]);
        let codes = ["DE", "CI", "AT", "XX", "DE"];
        let processed = users.process(&codes.map(|code| event(json!({"country": code}))));
        let expected = ANNA.replace("Anna Groß", "ANNA GROSS").replace(
            r#""country":"DE","#,
            r#""country":"DE","country_name":"Germany","#,
        );
        assert_eq!(processed.records[0].text(), expected);
        let name = |at: usize| processed.records[at].json()["country_name"].clone();
        assert_eq!((name(1), name(2)), (json!("Côte d'Ivoire"), Value::Null));
        assert_eq!(processed.records.len(), 4);
        let [(3, reason)] = &processed.failures[..] else {
            panic!("{:?}", processed.failures)
        };
        assert!(reason.contains("missing field `name`"), "{reason}");
        assert_eq!(processed.fetches, [4], "one call for all of them");
    }

    #[test]
    fn without_the_table_there_is_no_name() {
        let claim = event(json!({"country_name": "Atlantis"}));
        let processed = users(json!({})).process(&[claim]);
        assert_eq!(processed.records[0].json().get("country_name"), None);
        assert_eq!(users(json!({})).needs().lookups, [""; 0]);
    }

    #[test]
    fn who_is_too_young_is_dropped() {
        let ages = [17, 18, 19].map(|age| event(json!({"age": age, "id": age.to_string()})));
        let processed = users(json!({"min_age": 18})).process(&ages);
        let keys: Vec<&str> = processed
            .records
            .iter()
            .map(|user| user.key_text())
            .collect();
        assert_eq!(keys, ["18", "19"]);
        assert_eq!(processed.failures, []);
    }

    #[test]
    fn what_is_no_event_fails() {
        check_failure(Input::value("{"), "EOF while parsing");
        check_failure(Input::value("hello"), "expected value");
        check_failure(Input::value([0xff]), "isn't UTF-8");
        check_failure(Input::value("[]"), "invalid length 0");
        check_failure(Input::null(), "the value is null");
        check_failure(event(json!({"age": null})), "missing field `age`");
        check_failure(
            event(json!({"age": "34"})),
            "invalid type: string \"34\", expected u32",
        );
        check_failure(
            event(json!({"age": -1})),
            "invalid value: integer `-1`, expected u32",
        );
        check_failure(event(json!({"id": ""})), "`id` is empty");
    }

    #[test]
    fn a_misspelt_key_in_the_configuration_is_an_error() {
        let error = Harness::new::<Users>(json!({"min_aeg": 18})).err();
        assert_eq!(
            error.as_deref(),
            Some("config: unknown field `min_aeg`, expected `min_age`")
        );
    }
}
