//! Standard output of the commands. Whoever reads it may go (`| head`), a disk that it goes to may be full: neither is
//! a reason to leave nodes unattended, so what cannot be written is noted, and told once the command has ended.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use stormo_testnet::printable::printable;

static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// A line for people, as `println!` writes it: what would move a terminal's cursor is written out.
macro_rules! tell {
    ($($text:tt)*) => { $crate::told::line(format_args!($($text)*)) };
}
pub(crate) use tell;

/// What [`tell!`] writes.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    write(&format!("{}\n", printable(&text.to_string())));
}

/// A document for programs, as it is.
pub(crate) fn document(json: &str) {
    write(&format!("{json}\n"));
}

fn write(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// What could not be written; nothing where the reader has merely gone.
pub(crate) fn failed() -> Option<io::Error> {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner).take();
    failed.filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}
