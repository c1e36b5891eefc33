//! Which program a command means, and whether it can be run.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Where the C library looks if there is no PATH.
const USUAL_PATH: &str = "/bin:/usr/bin";

/// A command that can't be run. Its text says what to do.
#[derive(Debug)]
pub enum CommandError {
    /// There is no such file.
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// No directory of PATH has a program of this name.
    NotInPath {
        /// The name.
        name: String,
        /// The directories.
        directories: OsString,
    },
    /// It is there, and can't be run.
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It is a directory, or a device.
    NoFile {
        /// It.
        path: PathBuf,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => {
                write!(f, "{}: there is no such file; correct the path of the handler, or put it there", path.display())
            }
            Self::NotInPath { name, directories } => write!(
                f,
                "{name}: no directory of PATH ({}) has such a program; install it, or write its whole path",
                directories.display()
            ),
            Self::NotExecutable { path, error } => {
                let path = path.display();
                write!(f, "{path}: can't be run: {error}; chmod +x {path}, and let the worker's user get at it")
            }
            Self::NoFile { path } => write!(f, "{}: is no file that can be run; name the handler", path.display()),
        }
    }
}

impl std::error::Error for CommandError {}

/// Looks whether whoever runs this could run `program`. A name without a slash is looked for in PATH.
///
/// # Errors
/// It can't be run.
pub fn probe(program: &str) -> Result<(), CommandError> {
    probe_in(program, env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into()))
}

fn probe_in(program: &str, directories: OsString) -> Result<(), CommandError> {
    if program.contains('/') {
        return probe_file(Path::new(program));
    }
    let mut found = None;
    for directory in env::split_paths(&directories) {
        match probe_file(&directory.join(program)) {
            Ok(()) => return Ok(()),
            Err(CommandError::Missing { .. }) => {}
            Err(error) => found = found.or(Some(error)),
        }
    }
    Err(found.unwrap_or(CommandError::NotInPath { name: program.to_owned(), directories }))
}

fn probe_file(path: &Path) -> Result<(), CommandError> {
    let path = path.to_owned();
    match path.metadata() {
        Ok(there) if !there.is_file() => return Err(CommandError::NoFile { path }),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(CommandError::Missing { path });
        }
        Err(error) => return Err(CommandError::NotExecutable { path, error }),
    }
    access(&path, Access::EXEC_OK).map_err(|error| CommandError::NotExecutable { path, error: error.into() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_can_be_run_and_what_not_and_why() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for (name, mode) in [("good", 0o755), ("plain", 0o644)] {
            fs::write(at(name), "#!/bin/sh\n").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let path: OsString = format!("/no/such:{}", dir.path().display()).into();
        let why = |program: &str| probe_in(program, path.clone()).map_err(|error| error.to_string());
        assert_eq!((why(&at("good")), why("good")), (Ok(()), Ok(())));
        for (program, words) in [
            (at("none"), "there is no such file"),
            (at("plain"), "chmod +x"),
            ("plain".to_owned(), "chmod +x"),
            (at(""), "is no file that can be run"),
            ("none".to_owned(), "none: no directory of PATH (/no/such:"),
            (at("good/none"), "there is no such file"),
        ] {
            let text = why(&program).unwrap_err();
            assert!(text.contains(words), "{program}: {text}");
        }
    }
}
