//! Metadata values.

/// A value in the file's header.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// `f32` or `f64`.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// Text. Bytes that are not UTF-8 are refused while reading.
    Text(String),
    /// Text elements.
    Texts(Vec<String>),
    /// Integer elements.
    Integers(Vec<i64>),
    /// Float elements.
    Floats(Vec<f32>),
    /// Boolean elements.
    Bools(Vec<bool>),
}

impl Value {
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Unsigned(_) | Value::Signed(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Bool(_) => "a boolean",
            Value::Text(_) => "a string",
            Value::Texts(_) => "an array of strings",
            Value::Integers(_) => "an array of integers",
            Value::Floats(_) => "an array of numbers",
            Value::Bools(_) => "an array of booleans",
        }
    }
}
