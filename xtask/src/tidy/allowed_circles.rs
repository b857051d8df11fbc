//! The circles of modules that are honestly one thing, each with its reason.

/// Modules of one crate that use each other.
pub struct AllowedCircle {
    /// Of the crate's root.
    pub folder: &'static str,
    /// From the crate's root, `wasm::workers`, in alphabetical order.
    pub modules: &'static [&'static str],
    /// Why it is better so than with a module more.
    #[expect(dead_code, reason = "it is for people")]
    pub reason: &'static str,
}

/// Few: each entry costs whoever reads one of its files the reading of the others.
pub const ALLOWED: &[AllowedCircle] = &[
    AllowedCircle {
        folder: "protocol/src",
        modules: &["answer", "request", "sealed"],
        reason: "an answer has the form of its request, a request that is none has an answer, and one may be sealed",
    },
    AllowedCircle {
        folder: "clients/rust/src",
        modules: &["client", "driver"],
        reason: "the handle and the task of one client",
    },
    AllowedCircle {
        folder: "runtime/src",
        modules: &["network::link", "network::router"],
        reason: "the router and the connections that it is made of, which bring what it routes",
    },
    AllowedCircle {
        folder: "broker/src",
        modules: &["application", "broker"],
        reason: "the broker calls the application's hooks, and hands itself to them",
    },
    AllowedCircle {
        folder: "broker/src",
        modules: &["session", "session::client"],
        reason: "a session and the client that it belongs to",
    },
    AllowedCircle {
        folder: "clients/rust/src/bin/offload-client",
        modules: &["bench::live", "bench::load", "bench::summary"],
        reason: "a load, what is shown of it while it runs, and what is told of it at its end",
    },
    AllowedCircle {
        folder: "clients/rust/src/bin/offload-client",
        modules: &["code", "folder", "request"],
        reason: "the code that the flags name, and the request that is made of it",
    },
    AllowedCircle {
        folder: "clients/rust/src/bin/offload-client",
        modules: &["crate", "bench", "cancel", "completions", "man", "modules", "send"],
        reason: "the whole command line completes itself, where the names of programs go, and prints its manual",
    },
];
