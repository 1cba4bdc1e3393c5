//! How a verb fails: what went wrong, the mend, and the exit code.

use std::fmt;
use std::process::ExitCode;

/// A verb's failure, as it is told on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What went wrong; nothing to say when empty.
    pub what: String,
    /// What to do about it.
    pub mend: Option<String>,
    /// The exit code: 1 failed, 2 wrong usage.
    pub code: u8,
}

impl Failed {
    /// A failure without a known mend.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            mend: None,
            code: 1,
        }
    }

    /// Wrong arguments.
    pub fn usage(what: impl Into<String>) -> Self {
        Self {
            code: 2,
            ..Self::new(what)
        }
    }

    /// Everything was said already.
    pub fn silent() -> Self {
        Self::new("")
    }

    /// Adds the mend.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.mend {
            Some(mend) => write!(f, "\n  {mend}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failed {}

/// Standard output that went away (`| head`) is no failure worth a word.
impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Failed {
                code: 0,
                ..Failed::silent()
            }
        } else {
            Failed::new(error.to_string())
        }
    }
}
