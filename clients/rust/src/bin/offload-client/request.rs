//! The flags that say what is run, and how: the same for every command that sends requests.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Args;
use offload_client::{Code, Form, ReplyForm, Request, RequestLimits};

use crate::failure::Failure;
use crate::{code, units};

/// No packet of MQTT can carry more, so no more is read from a file or a pipe.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Args)]
pub struct RequestFlags {
    /// Build FILE at the gateway with this makefile, in which `<name>` stands for the program's path; of a folder in
    /// place of its own Makefile, and without `<name>`
    #[arg(long, value_name = "FILE")]
    makefile: Option<PathBuf>,

    /// Build FILE at the gateway with this compiler command [default: gcc <name>.c -o <name>, or g++ for C++]
    #[arg(long, value_name = "CMD", conflicts_with = "makefile")]
    build: Option<String>,

    /// What make makes of a folder, and the program to run [default: make's default target, and its first program]
    #[arg(long, value_name = "NAME")]
    target: Option<String>,

    /// What the guest reads from stdin; `-` is this command's own
    #[arg(long, value_name = "FILE|-")]
    stdin: Option<PathBuf>,

    /// A variable of the guest's environment; may be repeated
    #[arg(long, value_name = "K=V", value_parser = variable)]
    env: Vec<(String, String)>,

    /// Units of fuel that the guest may use
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,

    /// Memory that the guest may use: 64MiB, 64MB, or bytes
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    memory: Option<u64>,

    /// The guest's arguments. Flags of this command are read up to the first of them, or to `--`; a negative number is
    /// an argument
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_negative_numbers = true)]
    words: Vec<OsString>,

    /// The guest's arguments: everything that follows, hyphens and all
    // Split off before clap sees it, which would take `--` for its own.
    #[arg(long, value_name = "A", num_args = 0.., allow_hyphen_values = true)]
    args: Vec<OsString>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl RequestFlags {
    /// The request to run what `operand` stands for, without a timeout; reads all files that it names. Without an
    /// operand it is the gateway's default program. `after_args` is what followed `--args`.
    pub fn request(
        self,
        operand: Option<&str>,
        after_args: Option<Vec<OsString>>,
    ) -> Result<Request, Failure> {
        if operand == Some("-") && self.stdin.as_deref() == Some(Path::new("-")) {
            return Err(Failure::usage(
                "`-` and `--stdin -`: stdin can be the code or the guest's, not both",
            ));
        }
        // A word before `--args` has begun the guest's arguments, so that `--args` is one of them.
        let marker = after_args.as_ref().filter(|_| !self.words.is_empty()).map(|_| OsString::from("--args"));
        let args = self
            .words
            .into_iter()
            .chain(marker)
            .chain(after_args.unwrap_or_default())
            .enumerate()
            .map(|(index, arg)| {
                arg.into_string().map_err(|_| Failure::usage(format!("args[{index}]: expected UTF-8")))
            })
            .collect::<Result<_, _>>()?;
        let build = code::build(self.build.as_deref(), self.makefile.as_deref())?;
        let request = match operand {
            // In an envelope, so that stdin goes there and stderr comes back.
            Some(operand) => {
                let code = code::resolve(operand, build, self.target)?;
                // A folder's bytes as they stand; JSON makes them a third more.
                let form = if matches!(code, Code::Files(_)) { Form::Cbor } else { Form::Json };
                Request { form, ..Request::new(code) }
            }
            None if build.is_some() || self.target.is_some() => {
                let problem = "--build, --makefile and --target: expected with the file or folder to build";
                return Err(Failure::usage(problem));
            }
            // No envelope can name the default program.
            None => Request {
                form: Form::LegacyArgs,
                reply: ReplyForm::Stdout,
                ..Request::new(Code::DefaultProgram)
            },
        };
        Ok(Request {
            args,
            env: self.env,
            stdin: self.stdin.as_deref().map(read).transpose()?.unwrap_or_default().into(),
            limits: RequestLimits { fuel: self.fuel, memory: self.memory, timeout: None },
            ..request
        })
    }
}

/// Reads what the path names, this command's own stdin where it is `-`.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let outcome = if path == Path::new("-") {
        io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    match outcome {
        Err(error) => Err(code::unreadable(path, &error)),
        Ok(length) if length as u64 > MAX_BYTES => {
            Err(Failure::new("too-large", format!("{}: more than {MAX_BYTES} bytes", path.display())))
        }
        Ok(_) => Ok(bytes),
    }
}
