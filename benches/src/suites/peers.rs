//! Beside services that start a process for each request: what one would write, and what the gateway replaces.

use crate::load::{self, Connection, Load, Request};
use crate::request;
use crate::rounds::{Plan, turns};
use crate::serve::Kind;
use crate::server::Server;
use crate::table::{Figure, LOAD_FIGURES, Table, of_load};
use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// What the gateway's built-in program does, in C.
const ADD_SOURCE: &str = include_str!("../../peers/add.c");

/// The same module that the gateway has built in.
const ADD_MODULE: &str = include_str!("../../../guest-examples/add/add.wat");

/// Requests in flight. A client of MQTT 3.1.1, as the Python one is, has at most 20.
const IN_FLIGHT: [u16; 2] = [1, 16];

/// The same where each takes a compiler.
const SOURCES_IN_FLIGHT: [u16; 2] = [1, 4];

/// The same where nothing is built or started any more.
const REPEATED_IN_FLIGHT: [u16; 2] = [1, 64];

/// A server that is asked for something.
struct Contender<'a> {
    name: &'static str,
    server: &'a Server,
    request: Request,
}

pub fn run(plan: &Plan) -> Result<Vec<Table>> {
    let folder = tempfile::tempdir()?;
    let native = build(folder.path(), &["-O2"])?;
    let module = folder.path().join("add.wasm");
    std::fs::write(&module, wat::parse_str(ADD_MODULE)?)?;

    let gateway = Server::start(Kind::Gateway)?;
    let processes = Server::with_command(Kind::Processes, vec![native.clone().into()])?;
    let subscriber = Server::with_command(Kind::Subscriber, subscriber(&native)?)?;
    let wasmtime = find("wasmtime")
        .map(|program| {
            Server::with_command(Kind::Processes, vec![program.into(), "run".into(), module.into()])
        })
        .transpose()?;

    let mut programs =
        Table::new("processes", "`localCode` beside a process for each request", &LOAD_FIGURES).compare(&[
            ("gateway", "native process"),
            ("gateway", "wasmtime run"),
            ("gateway", "Python, native process"),
        ]);
    let mut contenders = vec![
        Contender { name: "gateway", server: &gateway, request: request::add() },
        Contender { name: "native process", server: &processes, request: request::add() },
        Contender { name: "Python, native process", server: &subscriber, request: request::add() },
    ];
    match &wasmtime {
        Some(server) => contenders.push(Contender { name: "wasmtime run", server, request: request::add() }),
        None => programs.notes.push("`wasmtime run` is absent: no `wasmtime` in PATH.".to_owned()),
    }
    measure(plan, &contenders, IN_FLIGHT, &mut programs)?;

    let mut offload = Table::new("offload", "`inputCode` beside gcc for each request", &LOAD_FIGURES)
        .compare(&[("gateway, module", "Python, gcc"), ("gateway, source", "Python, gcc")]);
    let source = request::source(ADD_SOURCE, "5 7", b"12\n");
    let mut contenders = vec![
        Contender { name: "gateway, module", server: &gateway, request: legacy_module()? },
        Contender { name: "Python, gcc", server: &subscriber, request: source.clone() },
    ];
    let mut builders = vec![("Python, gcc", &subscriber)];
    match answer(&gateway, &source)? {
        built if built == source.answer => {
            builders.push(("gateway, source", &gateway));
            contenders.push(Contender { name: "gateway, source", server: &gateway, request: source });
        }
        refused => {
            offload.notes.push(format!("The gateway builds no source here: {}", refused.escape_ascii()))
        }
    }
    measure(plan, &contenders, SOURCES_IN_FLIGHT, &mut offload)?;
    let mut tables = vec![programs, offload];
    if builders.len() > 1 {
        let mut servers = Vec::new();
        for compilers in ["unoptimized", "tcc"] {
            servers.push(Server::gateway(&format!("[sandbox]\ncompilers = \"{compilers}\"\n"))?);
        }
        builders.extend(["gateway, unoptimized", "gateway, tcc"].into_iter().zip(&servers));
        tables.push(builds(plan, &builders)?);
        tables.push(source_as_wasm(plan)?);
    }
    Ok(tables)
}

/// From just before source is sent to just after its answer is read: source that nobody has seen, and the same once
/// more.
fn builds(plan: &Plan, builders: &[(&str, &Server)]) -> Result<Table> {
    const MILLISECONDS: Figure = Figure::compared("ms", 1).plotted();
    const ALONE: &str = "gcc alone";
    const AGAIN: &str = "gateway, source, again";
    let mut table = Table::new("builds", "C source that was never seen, to its answer", &[MILLISECONDS])
        .compare(&[
            ("gateway, source", ALONE),
            ("gateway, source", "Python, gcc"),
            ("gateway, source", AGAIN),
            ("gateway, unoptimized", "gateway, source"),
            ("gateway, tcc", "gateway, source"),
        ]);
    let folder = tempfile::tempdir()?;
    plan.each_round(table.name, |round| {
        let mut add = |name: &str, begin: Instant| {
            table.add(round, "`add.c`", name, vec![begin.elapsed().as_secs_f64() * 1e3]);
        };
        for &(name, server) in turns(round, builders) {
            let request = request::source(&format!("/* {round} */\n{ADD_SOURCE}"), "5 7", b"12\n");
            let mut client = Connection::open(server.address(), "stranger")?;
            let begin = Instant::now();
            client.ask_rightly(&request).context(name.to_owned())?;
            add(name, begin);
            if name == "gateway, source" {
                let begin = Instant::now();
                client.ask_rightly(&request).context(AGAIN)?;
                add(AGAIN, begin);
            }
            client.close()?;
        }
        let begin = Instant::now();
        build(folder.path(), &[])?;
        add(ALONE, begin);
        Ok(())
    })?;
    Ok(table)
}

/// Source that was sent before and is run as wasm, beside a module that does the same.
fn source_as_wasm(plan: &Plan) -> Result<Table> {
    let mut table = Table::new("source-as-wasm", "Source as wasm, offloaded again and again", &LOAD_FIGURES)
        .compare(&[("source as wasm", "module")]);
    let gateway = Server::gateway("native = \"wasm\"\n")?;
    let source = request::source(ADD_SOURCE, "5 7", b"12\n");
    let first = answer(&gateway, &source)?;
    if first != source.answer {
        table.notes.push(format!("The gateway builds nothing for WASI here: {}", first.escape_ascii()));
        return Ok(table);
    }
    let contenders = [
        Contender { name: "module", server: &gateway, request: legacy_module()? },
        Contender { name: "source as wasm", server: &gateway, request: source },
    ];
    measure(plan, &contenders, REPEATED_IN_FLIGHT, &mut table)?;
    Ok(table)
}

/// What the built-in program does, as the module that the deployed devices would send.
fn legacy_module() -> Result<Request> {
    let mut payload = b"add----5 7----".to_vec();
    payload.extend(wat::parse_str(ADD_MODULE)?);
    Ok(request::module(&payload, b"12\n"))
}

fn measure(
    plan: &Plan,
    contenders: &[Contender<'_>],
    each_in_flight: [u16; 2],
    table: &mut Table,
) -> Result<()> {
    for contender in contenders {
        let warm = answer(contender.server, &contender.request)?;
        ensure!(warm == contender.request.answer, "{}: {}", contender.name, warm.escape_ascii());
    }
    plan.each_round(table.name, |round| {
        for in_flight in each_in_flight {
            for contender in turns(round, contenders) {
                let load = Load::closed(&contender.request, in_flight, plan.measured);
                let measured = load::run(contender.server.address(), &load).context(contender.name)?;
                table.add(round, &format!("{in_flight} in flight"), contender.name, of_load(&measured));
            }
        }
        Ok(())
    })
}

fn answer(server: &Server, request: &Request) -> Result<Vec<u8>> {
    let mut client = Connection::open(server.address(), "first")?;
    let answer = client.ask(request)?;
    client.close()?;
    Ok(answer)
}

/// Builds the native program.
fn build(folder: &Path, options: &[&str]) -> Result<PathBuf> {
    let (source, program) = (folder.join("add.c"), folder.join("add"));
    std::fs::write(&source, ADD_SOURCE)?;
    let status = Command::new("gcc").args(options).arg(&source).arg("-o").arg(&program).status();
    ensure!(status.context("cannot start gcc")?.success(), "gcc fails");
    Ok(program)
}

/// The subscriber's command, in the Python environment of `cargo xtask setup`.
fn subscriber(native: &Path) -> Result<Vec<OsString>> {
    let program = std::env::current_exe()?;
    let target =
        program.parent().and_then(Path::parent).context("this program lies outside cargo's folders")?;
    let python = target.join("python/bin/python");
    ensure!(python.is_file(), "{} is missing: run `cargo xtask setup`", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/subscriber.py");
    Ok(vec![python.into(), script.into(), native.into()])
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
