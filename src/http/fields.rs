//! Taking typed fields out of a JSON object, with errors that name the field.
//!
//! Each field is removed as it is read; what is left in the end is unknown to
//! us and is passed through.

use serde_json::{Map, Value};

use crate::http::problem::Problem;

/// The longest model name, in bytes: it goes into the ledger.
const MAX_MODEL_BYTES: usize = 256;
/// The most JSON values in one body. A value takes some hundred bytes in memory
/// and as few as two on the wire, so the body's size alone is no bound.
const MAX_VALUES: usize = 400_000;

/// A JSON object and the path that leads to it.
pub(crate) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads a request's body.
    ///
    /// # Errors
    /// When it is not a JSON object of reasonable size.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Problem> {
        Self::of("", json(body)?)
    }

    /// Takes `value` apart.
    ///
    /// # Errors
    /// When it is not an object.
    pub(crate) fn of(path: &str, value: Value) -> Result<Self, Problem> {
        match value {
            Value::Object(map) => Ok(Self {
                path: path.to_owned(),
                map,
            }),
            other => Err(Problem::field(
                path,
                format!("{path} must be an object, not {}.", kind(&other)),
            )),
        }
    }

    /// The path of one of its fields.
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A field that says something: absent and `null` are the same.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Sets a field, as if the client had sent it.
    pub(crate) fn put(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string", &other)),
        }
    }

    /// Takes `name` as the name of a function, of at most `longest` characters.
    ///
    /// # Errors
    /// When it is missing or has other characters than names may have.
    pub(crate) fn function_name(&mut self, longest: usize) -> Result<String, Problem> {
        let name = self.required_string("name")?;
        let well_formed = (1..=longest).contains(&name.len())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        if well_formed {
            return Ok(name);
        }
        Err(Problem::field(
            self.path_of("name"),
            format!("The name must have 1 to {longest} letters, digits, '_', '-' or '.'."),
        ))
    }

    pub(crate) fn required_string(&mut self, name: &str) -> Result<String, Problem> {
        self.string(name)?
            .ok_or_else(|| self.missing(name, "a string"))
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(name, "true or false", &other)),
        }
    }

    /// A whole number within bounds.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        min: i64,
        max: i64,
    ) -> Result<Option<i64>, Problem> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        // Some clients send 5.0 for 5.
        let number = value.as_i64().or_else(|| {
            value
                .as_f64()
                .filter(|f| f.fract() == 0.0)
                .map(|f| f as i64)
        });
        match number {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(Problem::field(
                self.path_of(name),
                format!(
                    "{} must be a whole number from {min} to {max}.",
                    self.path_of(name)
                ),
            )),
        }
    }

    /// A number within bounds.
    pub(crate) fn number(
        &mut self,
        name: &str,
        min: f64,
        max: f64,
    ) -> Result<Option<f32>, Problem> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number as f32)),
            _ => Err(Problem::field(
                self.path_of(name),
                format!(
                    "{} must be a number from {min} to {max}.",
                    self.path_of(name)
                ),
            )),
        }
    }

    pub(crate) fn array(&mut self, name: &str) -> Result<Option<Vec<Value>>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong(name, "an array", &other)),
        }
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Fields>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => Fields::of(&self.path_of(name), value).map(Some),
        }
    }

    /// The model's name; `auto` where none is named.
    pub(crate) fn model(&mut self) -> Result<String, Problem> {
        let model = self.string("model")?.unwrap_or_else(|| "auto".to_owned());
        if model.is_empty() || model.len() > MAX_MODEL_BYTES || model.chars().any(char::is_control)
        {
            return Err(Problem::field(
                "model",
                format!(
                    "model must be 1 to {MAX_MODEL_BYTES} bytes of printable text, such as auto \
                     or local/concierge."
                ),
            ));
        }
        Ok(model)
    }

    /// What nobody asked for.
    pub(crate) fn rest(self) -> Map<String, Value> {
        self.map
    }

    pub(crate) fn missing(&self, name: &str, wanted: &str) -> Problem {
        let path = self.path_of(name);
        Problem::field(&path, format!("{path} is missing. It must be {wanted}."))
    }

    fn wrong(&self, name: &str, wanted: &str, found: &Value) -> Problem {
        let path = self.path_of(name);
        Problem::field(
            &path,
            format!("{path} must be {wanted}, not {}.", kind(found)),
        )
    }
}

/// The JSON type's name, for messages that must not quote content.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn json(body: &[u8]) -> Result<Value, Problem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Problem::bad_request(
            "invalid_utf8",
            format!(
                "The body is not valid UTF-8 at byte {}. Send JSON in UTF-8.",
                error.valid_up_to()
            ),
        )
    })?;
    if has_too_many_values(body) {
        return Err(Problem::bad_request(
            "too_many_values",
            format!("The body holds more than {MAX_VALUES} JSON values. Send less."),
        ));
    }
    serde_json::from_str(text).map_err(|error| {
        // serde_json's message names what it expected, never what it read;
        // line and column are enough to find it.
        Problem::bad_request(
            "invalid_json",
            format!(
                "The body is not valid JSON at line {}, column {}.",
                error.line(),
                error.column()
            ),
        )
    })
}

/// Counts what separates values, outside of strings. Every value but the first
/// follows one of these, so the count bounds theirs, in any text at all.
fn has_too_many_values(body: &[u8]) -> bool {
    let mut count = 0;
    let (mut quoted, mut escaped) = (false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' | b':' if !quoted => count += 1,
            _ => {}
        }
    }
    count > MAX_VALUES
}
