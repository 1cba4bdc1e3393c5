//! A JSON object that is built field by field and keeps raw text as it came.
//!
//! Tool schemas and unknown fields pass through as the client wrote them: a
//! round trip through a tree would change numbers, and with them the
//! provider's prompt cache.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// Fields in the order of setting.
#[derive(Default)]
pub(crate) struct Object {
    fields: Vec<(String, Box<RawValue>)>,
}

impl Object {
    /// Sets a field. A value that JSON cannot hold is left out; none of ours is.
    pub(crate) fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        if let Ok(raw) = to_raw_value(value) {
            self.fields.push((name.to_owned(), raw));
        }
    }

    /// Sets a field where there is a value.
    pub(crate) fn set_some<T: Serialize>(&mut self, name: &str, value: &Option<T>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Adds the fields of an object in text that are neither set nor `reserved`.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub(crate) fn merge(&mut self, text: &str, reserved: &[&str]) -> Result<(), NotAnObject> {
        if text.is_empty() {
            return Ok(());
        }
        let extra: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(text).map_err(|_| NotAnObject)?;
        for (name, value) in extra {
            let known = reserved.contains(&name.as_str())
                || self.fields.iter().any(|(have, _)| *have == name);
            if !known {
                self.fields.push((name, value));
            }
        }
        Ok(())
    }

    /// The object as bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        // Raw values are JSON already; writing them into memory cannot fail.
        serde_json::to_vec(&self).unwrap_or_default()
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A text that should have been a JSON object.
#[derive(Debug)]
pub(crate) struct NotAnObject;

/// Reads JSON text to be passed on as it stands.
pub(crate) fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_fields_win_and_text_is_kept() {
        let mut object = Object::default();
        object.set("model", "m");
        object.set("temperature", &0.7f32);
        object
            .merge(
                r#"{"model":"other","user":"u","big":12345678901234567890123,"stream":false}"#,
                &["stream"],
            )
            .unwrap();
        assert_eq!(
            String::from_utf8(object.into_bytes()).unwrap(),
            r#"{"model":"m","temperature":0.7,"big":12345678901234567890123,"user":"u"}"#
        );
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for text in ["[]", "{", "1", "{\"a\":}"] {
            assert!(Object::default().merge(text, &[]).is_err(), "{text}");
        }
        assert!(Object::default().merge("", &[]).is_ok());
    }
}
