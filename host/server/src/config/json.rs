//! A step's `config` table as the JSON object that its plugin gets.

use serde_json::{Map, Number, Value};
use toml::de::DeValue;

use super::problem::Place;
use super::value::{Entry, Section, Walk};

impl Walk<'_, '_> {
    /// JSON text. Dates and times become strings; what JSON has no number for is a problem.
    pub fn config(&mut self, entry: &Entry<'_>) -> Option<String> {
        let section = self.table(entry)?;
        let object = self.json_object(&section)?;
        Some(Value::Object(object).to_string())
    }

    /// Keys sorted: the same configuration is the same text.
    fn json_object(&mut self, section: &Section<'_>) -> Option<Map<String, Value>> {
        let mut entries = section.entries();
        entries.sort_by_key(|entry| entry.key);
        let values: Vec<_> = entries
            .iter()
            .map(|entry| (entry.key.to_owned(), self.json(&entry.place, entry.value)))
            .collect();
        values
            .into_iter()
            .map(|(key, value)| value.map(|value| (key, value)))
            .collect()
    }

    fn json(&mut self, place: &Place, value: &DeValue<'_>) -> Option<Value> {
        match value {
            DeValue::String(text) => Some(text.to_string().into()),
            DeValue::Boolean(truth) => Some((*truth).into()),
            DeValue::Datetime(time) => Some(time.to_string().into()),
            DeValue::Integer(number) => {
                let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
                if number.is_none() {
                    self.findings
                        .problem(place, "an integer of more than 64 bits");
                }
                number.map(Into::into)
            }
            DeValue::Float(number) => {
                let number = number.as_str().parse().ok().and_then(Number::from_f64);
                if number.is_none() {
                    self.findings
                        .problem(place, "a number that JSON does not have");
                }
                number.map(Into::into)
            }
            DeValue::Array(array) => {
                let values: Vec<_> = array
                    .iter()
                    .enumerate()
                    .map(|(index, element)| {
                        let key = format!("{}[{index}]", place.key);
                        let place = Place {
                            key,
                            offset: element.span().start,
                        };
                        self.json(&place, element.get_ref())
                    })
                    .collect();
                values
                    .into_iter()
                    .collect::<Option<Vec<_>>>()
                    .map(Into::into)
            }
            DeValue::Table(table) => {
                let section = Section {
                    place: place.clone(),
                    table,
                };
                self.json_object(&section).map(Into::into)
            }
        }
    }
}
