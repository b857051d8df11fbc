//! The real sandbox from outside: what works in it, and what strangers try. Each attack has a test that shows how it
//! ends for whoever sent it, and that the machine is as before.

mod compilers;
mod files;
mod folders;
mod host;
mod identities;
mod memory;
mod network;
mod orphans;
mod output;
mod probe;
mod processes;
mod programs;
mod projects;
mod rights;
mod sandbox;
mod secrets;
mod time;
mod wasi;
