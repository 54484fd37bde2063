//! Holds answers against what `/openapi.json` says of them: path, status, media type and shape. It knows as much of JSON Schema as
//! the document uses.

use rig::http::Answer;
use serde_json::Value;

pub struct Document(Value);

impl Document {
    pub fn read(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200);
        let document: Value = serde_json::from_str(answer.text()).expect("the document is JSON");
        assert_eq!(document["openapi"], "3.1.0");
        Self(document)
    }

    /// Paths, as templates.
    pub fn paths(&self) -> Vec<&str> {
        let paths = self.0["paths"].as_object().expect("a document has paths");
        paths.keys().map(String::as_str).collect()
    }

    /// Panics where an answer to GET `path` is not as the document says.
    pub fn check(&self, path: &str, answer: &Answer) {
        self.check_method("get", path, answer);
    }

    /// The same of another method, in lower case.
    pub fn check_method(&self, method: &str, path: &str, answer: &Answer) {
        let template = self.template(path.split('?').next().unwrap_or_default());
        let Some(template) = template else {
            assert_eq!(answer.status, 404, "{path} is in no template");
            return self.check_body(path, &self.0["components"]["schemas"]["Error"], answer);
        };
        let response = &self.0["paths"][template][method]["responses"][answer.status.to_string()];
        assert!(
            response.is_object(),
            "{path}: {} is not documented",
            answer.status
        );
        let content = response["content"]
            .as_object()
            .expect("every answer has a body");
        let media = answer
            .header("content-type")
            .expect("every answer has a type");
        let media = media.split(';').next().unwrap_or_default();
        let documented = content
            .get(media)
            .unwrap_or_else(|| panic!("{path}: {media} is not documented"));
        if media == "application/json" {
            self.check_body(path, &documented["schema"], answer);
        }
    }

    /// The one with the most fixed parts that fits; a key is the rest of the path.
    fn template(&self, path: &str) -> Option<&str> {
        let fits = |template: &&str| {
            let mut parts = path.split('/');
            let fit = template.split('/').all(|part| match (part, parts.next()) {
                ("{key}", Some(_)) => {
                    parts.by_ref().for_each(drop);
                    true
                }
                (part, Some(found)) => part == found || part.starts_with('{'),
                (_, None) => false,
            });
            fit && parts.next().is_none()
        };
        self.paths()
            .into_iter()
            .filter(fits)
            .min_by_key(|template| template.matches('{').count())
    }

    fn check_body(&self, path: &str, schema: &Value, answer: &Answer) {
        let body = serde_json::from_str(answer.text());
        let body: Value = body.unwrap_or_else(|error| panic!("{path}: {error} in {answer:?}"));
        if let Err(why) = self.fits(schema, &body) {
            panic!("{path}: {why} in {body}");
        }
    }

    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.0.pointer(reference.trim_start_matches('#'));
            return self.fits(target.ok_or(format!("{reference} leads nowhere"))?, value);
        }
        let types = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => Vec::from_iter(one.as_str()),
        };
        if !types.is_empty() && !types.contains(&kind(value)) {
            return Err(format!("{value} is not {types:?}"));
        }
        if schema["enum"]
            .as_array()
            .is_some_and(|known| !known.contains(value))
        {
            return Err(format!("{value} is not one of {}", schema["enum"]));
        }
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            value.get(name).ok_or(format!("`{name}` is missing"))?;
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            value
                .get(name)
                .map_or(Ok(()), |value| self.fits(schema, value))?;
        }
        for element in value.as_array().into_iter().flatten() {
            self.fits(&schema["items"], element)?;
        }
        for schema in schema["allOf"].as_array().into_iter().flatten() {
            self.fits(schema, value)?;
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let fitting = choices
                .iter()
                .filter(|schema| self.fits(schema, value).is_ok())
                .count();
            if fitting != 1 {
                return Err(format!("{fitting} of one fit {value}"));
            }
        }
        Ok(())
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
