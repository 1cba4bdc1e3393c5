//! Reading a file's header, checked, and its tensors, on demand.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{LoadError, TensorType, Value};

/// Headers of real models stay below this: 262 k tokens with merges take some 20 MB.
const MAX_HEADER_BYTES: u64 = 256 << 20;
const MAX_TENSORS: u64 = 1 << 16;
const MAX_KEYS: u64 = 1 << 16;
const MAX_DIMENSIONS: u32 = 4;
/// The longest arrays are vocabularies and merges, well below a million.
const MAX_ELEMENTS: u64 = 1 << 23;

/// An open model file: its header in memory, its tensors where they are.
pub struct Gguf {
    metadata: HashMap<String, Value>,
    tensors: HashMap<String, TensorInfo>,
    data_start: u64,
    bytes: Bytes,
    file_bytes: u64,
    /// Told how many bytes of tensors were read.
    reads: Option<Arc<AtomicU64>>,
}

enum Bytes {
    Static(&'static [u8]),
    File(Mutex<File>),
}

/// Where a tensor lies and what it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Row-major dimensions: the last one is contiguous.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: TensorType,
    /// From the start of the tensor data, in bytes.
    offset: u64,
    /// Length in bytes; 0 for types that we do not run.
    bytes: u64,
}

impl TensorInfo {
    /// Length of the tensor's data in bytes.
    pub fn byte_len(&self) -> u64 {
        self.bytes
    }
}

impl Gguf {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// [`LoadError`] when it cannot be read or is not a whole GGUF file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let header = Header::read(BufReader::with_capacity(1 << 16, &file), length)?;
        Ok(header.into_gguf(Bytes::File(Mutex::new(file)), length))
    }

    /// Reads a file that is part of the binary.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, LoadError> {
        let length = bytes.len() as u64;
        let header = Header::read(bytes, length)?;
        Ok(header.into_gguf(Bytes::Static(bytes), length))
    }

    /// Has the bytes of every tensor that is read added up in `reads`: how far
    /// a load is.
    pub fn count_reads(&mut self, reads: Arc<AtomicU64>) {
        self.reads = Some(reads);
    }

    /// Length of the whole file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// A metadata value, where there is one.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A string that must be there.
    ///
    /// # Errors
    /// Names the key.
    pub fn str(&self, key: &str) -> Result<&str, LoadError> {
        match self.value(key) {
            Some(Value::Text(text)) => Ok(text),
            other => Err(wrong(key, "a string", other)),
        }
    }

    /// A string that may be there.
    pub fn opt_str(&self, key: &str) -> Option<&str> {
        self.str(key).ok()
    }

    /// A non-negative integer that must be there and fit 32 bits.
    ///
    /// # Errors
    /// Names the key.
    pub fn u32(&self, key: &str) -> Result<u32, LoadError> {
        let number = match self.value(key) {
            Some(Value::Unsigned(number)) => u32::try_from(*number).ok(),
            Some(Value::Signed(number)) => u32::try_from(*number).ok(),
            other => return Err(wrong(key, "an integer", other)),
        };
        number.ok_or_else(|| LoadError::key(key, "is out of range"))
    }

    /// An integer that may be missing, but not wrong.
    ///
    /// # Errors
    /// Names the key.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, LoadError> {
        self.value(key).map(|_| self.u32(key)).transpose()
    }

    /// A finite number that must be there.
    ///
    /// # Errors
    /// Names the key.
    pub fn f32(&self, key: &str) -> Result<f32, LoadError> {
        match self.value(key) {
            Some(Value::Float(number)) if number.is_finite() => Ok(*number as f32),
            Some(Value::Unsigned(number)) => Ok(*number as f32),
            other => Err(wrong(key, "a finite number", other)),
        }
    }

    /// A number that may be missing, but not wrong.
    ///
    /// # Errors
    /// Names the key.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, LoadError> {
        self.value(key).map(|_| self.f32(key)).transpose()
    }

    /// A boolean that may be missing, but not wrong.
    ///
    /// # Errors
    /// Names the key.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, LoadError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            other => Err(wrong(key, "a boolean", other)),
        }
    }

    /// An array of strings that must be there.
    ///
    /// # Errors
    /// Names the key.
    pub fn strings(&self, key: &str) -> Result<&[String], LoadError> {
        match self.value(key) {
            Some(Value::Texts(texts)) => Ok(texts),
            other => Err(wrong(key, "an array of strings", other)),
        }
    }

    /// An array of integers that may be there.
    pub fn opt_integers(&self, key: &str) -> Option<&[i64]> {
        match self.value(key) {
            Some(Value::Integers(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// An array of numbers that may be there.
    pub fn opt_floats(&self, key: &str) -> Option<&[f32]> {
        match self.value(key) {
            Some(Value::Floats(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// A tensor's description, where there is one.
    pub fn tensor_info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// All tensors, in no order.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// A tensor's bytes. `buffer` holds them, unless they are part of the
    /// binary; give the same one for each tensor, so that it is allocated once.
    ///
    /// # Errors
    /// When the type is not one that we run, or the file changed under us.
    pub fn read_tensor<'b>(
        &self,
        info: &TensorInfo,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], LoadError> {
        self.read_part(info, 0..info.bytes as usize, buffer)
    }

    /// A part of a tensor's bytes.
    ///
    /// # Errors
    /// As [`Gguf::read_tensor`]; and when the tensor is not so long.
    pub fn read_part<'b>(
        &self,
        info: &TensorInfo,
        part: Range<usize>,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], LoadError> {
        if info.dtype.block().is_none() {
            return Err(unsupported_type(info));
        }
        let outside = || LoadError::tensor(&info.name, "lies outside of the file");
        if part.start > part.end || part.end as u64 > info.bytes {
            return Err(outside());
        }
        // The reader checked that the tensor lies within the file.
        let start = self.data_start + info.offset + part.start as u64;
        let length = part.len() as u64;
        if let Some(reads) = &self.reads {
            reads.fetch_add(length, Ordering::Relaxed);
        }
        match &self.bytes {
            Bytes::Static(bytes) => bytes
                .get(start as usize..(start + length) as usize)
                .ok_or_else(outside),
            Bytes::File(file) => {
                let mut file = file
                    .lock()
                    .map_err(|_| LoadError::damaged("a reader of this file panicked"))?;
                file.seek(SeekFrom::Start(start))?;
                buffer.clear();
                buffer.reserve_exact(part.len());
                // Not zeroed first, as it would be for `read_exact`.
                let read = file.by_ref().take(length).read_to_end(buffer)?;
                if read as u64 != length {
                    return Err(LoadError::tensor(
                        &info.name,
                        "ends early: the file has changed",
                    ));
                }
                read_ahead(&file, start + length);
                Ok(buffer)
            }
        }
    }
}

/// Has the system read what probably comes next, while this part is worked on.
#[cfg(target_os = "linux")]
fn read_ahead(file: &File, start: u64) {
    const AHEAD: Option<std::num::NonZero<u64>> = std::num::NonZero::new(16 << 20);
    // Only advice: where it is not taken, reading is slower.
    let _ = rustix::fs::fadvise(file, start, AHEAD, rustix::fs::Advice::WillNeed);
}

#[cfg(not(target_os = "linux"))]
fn read_ahead(_: &File, _: u64) {}

/// The refusal for a tensor type that we do not run.
pub(crate) fn unsupported_type(info: &TensorInfo) -> LoadError {
    LoadError::Unsupported(format!(
        "the tensor '{}' is stored as {}, which this engine does not run; use a file quantised as \
         Q4_K_M, Q5_K_M, Q6_K, Q8_0, Q4_0, F16 or F32",
        info.name,
        info.dtype.name()
    ))
}

fn wrong(key: &str, wanted: &str, found: Option<&Value>) -> LoadError {
    LoadError::key(
        key,
        match found {
            None => format!("is missing; it must be {wanted}"),
            Some(value) => format!("must be {wanted}, not {}", value.type_name()),
        },
    )
}

struct Header {
    metadata: HashMap<String, Value>,
    tensors: HashMap<String, TensorInfo>,
    data_start: u64,
}

impl Header {
    fn into_gguf(self, bytes: Bytes, file_bytes: u64) -> Gguf {
        Gguf {
            metadata: self.metadata,
            tensors: self.tensors,
            data_start: self.data_start,
            bytes,
            file_bytes,
            reads: None,
        }
    }

    fn read(source: impl Read, file_bytes: u64) -> Result<Self, LoadError> {
        let mut input = Input {
            source,
            at: 0,
            end: file_bytes.min(MAX_HEADER_BYTES),
        };
        if input.array::<4>()? != *b"GGUF" {
            return Err(LoadError::damaged("it does not begin with 'GGUF'"));
        }
        let version = input.u32()?;
        if !(2..=3).contains(&version) {
            return Err(LoadError::Unsupported(format!(
                "GGUF version {version} is not supported (2 and 3 are); convert the model again \
                 with a current llama.cpp"
            )));
        }
        let tensor_count = input.u64()?;
        let key_count = input.u64()?;
        if tensor_count > MAX_TENSORS || key_count > MAX_KEYS {
            return Err(LoadError::damaged(format!(
                "it claims {tensor_count} tensors and {key_count} keys"
            )));
        }
        let mut metadata = HashMap::new();
        for _ in 0..key_count {
            let key = input.text()?;
            let kind = input.u32()?;
            let value = input.value(kind, &key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(LoadError::key(&key, "occurs twice"));
            }
        }
        let mut tensors = HashMap::new();
        for _ in 0..tensor_count {
            let info = input.tensor()?;
            let name = info.name.clone();
            if tensors.insert(name.clone(), info).is_some() {
                return Err(LoadError::tensor(&name, "occurs twice"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Unsigned(n)) if n.is_power_of_two() && (8..=1 << 20).contains(n) => *n,
            Some(_) => {
                return Err(LoadError::key(
                    "general.alignment",
                    "must be a power of two from 8 to 1048576",
                ));
            }
        };
        let data_start = input.at.next_multiple_of(alignment);
        // Tensors that share bytes would let a small file fill the memory.
        let total = tensors
            .values()
            .try_fold(0u64, |sum, info| sum.checked_add(info.bytes));
        if total.is_none_or(|total| total > file_bytes) {
            return Err(LoadError::damaged(
                "its tensors together are larger than the file",
            ));
        }
        for info in tensors.values() {
            let end = data_start
                .checked_add(info.offset)
                .and_then(|start| start.checked_add(info.bytes));
            if info.offset % alignment != 0 || end.is_none_or(|end| end > file_bytes) {
                return Err(LoadError::tensor(
                    &info.name,
                    "lies outside of the file; the download is probably not complete",
                ));
            }
        }
        Ok(Self {
            metadata,
            tensors,
            data_start,
        })
    }
}

/// The header's bytes with their position. No read passes `end`.
struct Input<R> {
    source: R,
    at: u64,
    end: u64,
}

impl<R: Read> Input<R> {
    fn take(&mut self, bytes: u64) -> Result<(), LoadError> {
        match self.at.checked_add(bytes) {
            Some(at) if at <= self.end => {
                self.at = at;
                Ok(())
            }
            _ => Err(LoadError::damaged(format!(
                "the header asks for {bytes} bytes at byte {}, past the end",
                self.at
            ))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        self.take(N as u64)?;
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, LoadError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, LoadError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Bytes whose length was checked against what is left of the file.
    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, LoadError> {
        self.take(length)?;
        let mut bytes = vec![0; length as usize];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<String, LoadError> {
        let length = self.u64()?;
        let at = self.at;
        String::from_utf8(self.bytes(length)?)
            .map_err(|_| LoadError::damaged(format!("a string at byte {at} is not UTF-8")))
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Value, LoadError> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>()?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Unsigned(u64::from(self.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => self.array_value(key)?,
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(LoadError::key(key, format!("has the unknown type {other}"))),
        })
    }

    fn array_value(&mut self, key: &str) -> Result<Value, LoadError> {
        let kind = self.u32()?;
        let count = self.u64()?;
        let width: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => 8, // the length of each string
            9 => {
                return Err(LoadError::key(
                    key,
                    "is an array of arrays, which is not supported",
                ));
            }
            other => {
                return Err(LoadError::key(
                    key,
                    format!("has elements of the unknown type {other}"),
                ));
            }
        };
        let left = self.end - self.at;
        if count > MAX_ELEMENTS || count.checked_mul(width).is_none_or(|bytes| bytes > left) {
            return Err(LoadError::key(
                key,
                format!("claims {count} elements, more than the file holds or any model needs"),
            ));
        }
        if kind == 8 {
            // The smallest string takes 8 bytes in the file and 24 in memory:
            // growing as we read keeps memory near what the file really holds.
            let mut texts = Vec::new();
            for _ in 0..count {
                texts.push(self.text()?);
            }
            return Ok(Value::Texts(texts));
        }
        let bytes = self.bytes(count * width)?;
        Ok(match kind {
            0 => Value::Integers(bytes.iter().map(|b| i64::from(*b)).collect()),
            1 => Value::Integers(each(&bytes, |b: [u8; 1]| i64::from(i8::from_le_bytes(b)))),
            2 => Value::Integers(each(&bytes, |b| i64::from(u16::from_le_bytes(b)))),
            3 => Value::Integers(each(&bytes, |b| i64::from(i16::from_le_bytes(b)))),
            4 => Value::Integers(each(&bytes, |b| i64::from(u32::from_le_bytes(b)))),
            5 => Value::Integers(each(&bytes, |b| i64::from(i32::from_le_bytes(b)))),
            6 => Value::Floats(each(&bytes, f32::from_le_bytes)),
            7 => Value::Bools(bytes.iter().map(|b| *b != 0).collect()),
            // A u64 beyond i64 has no meaning in any key that is read.
            10 => Value::Integers(each(&bytes, |b| {
                i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX)
            })),
            11 => Value::Integers(each(&bytes, i64::from_le_bytes)),
            _ => Value::Floats(each(&bytes, |b| f64::from_le_bytes(b) as f32)),
        })
    }

    fn tensor(&mut self) -> Result<TensorInfo, LoadError> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(LoadError::tensor(
                &name,
                format!("has {dimensions} dimensions"),
            ));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            let size = self.u64()?;
            if size == 0 || size > 1 << 40 {
                return Err(LoadError::tensor(
                    &name,
                    format!("has a dimension of {size}"),
                ));
            }
            shape.push(size as usize);
        }
        let dtype = TensorType::from_number(self.u32()?);
        let offset = self.u64()?;
        let bytes = match dtype.block() {
            None => 0,
            Some((elements, block_bytes)) => {
                // ggml puts the contiguous dimension first.
                if !shape[0].is_multiple_of(elements) {
                    return Err(LoadError::tensor(
                        &name,
                        format!(
                            "has rows of {} elements, not whole {} blocks",
                            shape[0],
                            dtype.name()
                        ),
                    ));
                }
                shape
                    .iter()
                    .try_fold(1u64, |n, d| n.checked_mul(*d as u64))
                    .map(|n| n / elements as u64)
                    .and_then(|blocks| blocks.checked_mul(block_bytes as u64))
                    .ok_or_else(|| LoadError::tensor(&name, "is absurdly large"))?
            }
        };
        shape.reverse();
        Ok(TensorInfo {
            name,
            shape,
            dtype,
            offset,
            bytes,
        })
    }
}

fn each<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|chunk| read(*chunk))
        .collect()
}
