//! Writing small GGUF files: the tests' models, and a model's recipe.

use std::io::Write;

use super::{TensorType, Value};

/// Collects metadata and tensors and writes them as one GGUF v3 file.
#[derive(Default)]
pub struct GgufWriter {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<usize>, TensorType, Vec<u8>)>,
}

const ALIGNMENT: usize = 32;

impl GgufWriter {
    /// Adds a metadata value. Unsigned numbers are written as `u32`, floats as `f32`.
    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        self.metadata.push((key.to_owned(), value));
        self
    }

    /// Adds a tensor of `shape` (row-major) whose bytes are already in `dtype`'s form.
    pub fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        dtype: TensorType,
        data: Vec<u8>,
    ) -> &mut Self {
        self.tensors
            .push((name.to_owned(), shape.to_vec(), dtype, data));
        self
    }

    /// Sets a metadata value in place of the one that was set before, if any.
    pub fn replace(&mut self, key: &str, value: Value) -> &mut Self {
        self.metadata.retain(|(name, _)| name != key);
        self.set(key, value)
    }

    /// Adds a tensor in place of the one of the same name, if any.
    pub fn replace_tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        dtype: TensorType,
        data: Vec<u8>,
    ) -> &mut Self {
        self.tensors.retain(|(other, ..)| other != name);
        self.tensor(name, shape, dtype, data)
    }

    /// Gives a tensor another name.
    pub fn rename_tensor(&mut self, name: &str, new: &str) -> &mut Self {
        for (other, ..) in &mut self.tensors {
            if other == name {
                new.clone_into(other);
            }
        }
        self
    }

    /// The shape of a tensor that was added; empty when there is none.
    pub fn shape_of(&self, name: &str) -> Vec<usize> {
        let found = self.tensors.iter().find(|(other, ..)| other == name);
        found
            .map(|(_, shape, ..)| shape.clone())
            .unwrap_or_default()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Whatever `out` says.
    pub fn write(&self, mut out: impl Write) -> std::io::Result<()> {
        let mut header = Vec::new();
        header.extend_from_slice(b"GGUF");
        header.extend_from_slice(&3u32.to_le_bytes());
        header.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        header.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut header, key);
            write_value(&mut header, value);
        }
        let mut offset = 0usize;
        for (name, shape, dtype, data) in &self.tensors {
            text(&mut header, name);
            header.extend_from_slice(&(shape.len() as u32).to_le_bytes());
            for size in shape.iter().rev() {
                header.extend_from_slice(&(*size as u64).to_le_bytes());
            }
            header.extend_from_slice(&dtype.number().to_le_bytes());
            header.extend_from_slice(&(offset as u64).to_le_bytes());
            offset = (offset + data.len()).next_multiple_of(ALIGNMENT);
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&header)?;
        for (.., data) in &self.tensors {
            out.write_all(data)?;
            let padding = data.len().next_multiple_of(ALIGNMENT) - data.len();
            out.write_all(&[0; ALIGNMENT][..padding])?;
        }
        out.flush()
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    let mut array = |kind: u32, count: usize| {
        out.extend_from_slice(&9u32.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&(count as u64).to_le_bytes());
    };
    match value {
        Value::Unsigned(n) => {
            out.extend_from_slice(&4u32.to_le_bytes());
            out.extend_from_slice(&(*n as u32).to_le_bytes());
        }
        Value::Signed(n) => {
            out.extend_from_slice(&5u32.to_le_bytes());
            out.extend_from_slice(&(*n as i32).to_le_bytes());
        }
        Value::Float(n) => {
            out.extend_from_slice(&6u32.to_le_bytes());
            out.extend_from_slice(&(*n as f32).to_le_bytes());
        }
        Value::Bool(b) => {
            out.extend_from_slice(&7u32.to_le_bytes());
            out.push(u8::from(*b));
        }
        Value::Text(t) => {
            out.extend_from_slice(&8u32.to_le_bytes());
            text(out, t);
        }
        Value::Texts(texts) => {
            array(8, texts.len());
            for t in texts {
                text(out, t);
            }
        }
        Value::Integers(numbers) => {
            array(5, numbers.len());
            for n in numbers {
                out.extend_from_slice(&(*n as i32).to_le_bytes());
            }
        }
        Value::Floats(numbers) => {
            array(6, numbers.len());
            for n in numbers {
                out.extend_from_slice(&n.to_le_bytes());
            }
        }
        Value::Bools(bools) => {
            array(7, bools.len());
            out.extend(bools.iter().map(|b| u8::from(*b)));
        }
    }
}
