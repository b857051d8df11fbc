//! The attacks: each with the number of what it once did to a gateway, and one file a family.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use crate::arena::Arena;
use crate::stage::Door;
use crate::visitor::Errand;

mod accounts;
mod answers;
mod connects;
mod decoding;
mod modules;
mod native;
mod sessions;
mod subscriptions;
mod uploads;

/// One way of abusing the gateway, by one ordinary account or fewer, unless its description says otherwise.
pub struct Attack {
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    pub door: Door,
    /// What visitors come for meanwhile.
    pub errand: Errand,
    pub run: Run,
}

/// Goes on until it is over, or has done all that it can.
type Run = fn(Arc<Arena>) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

macro_rules! attack {
    ($name:literal, $run:path, $door:ident, $errand:ident, $about:literal) => {
        Attack {
            name: $name,
            about: $about,
            door: Door::$door,
            errand: Errand::$errand,
            run: |arena| Box::pin($run(arena)),
        }
    };
}

/// All of them.
pub const ATTACKS: &[Attack] = &[
    attack!("reentry", modules::reentry, Passwords, Program, "a component recurses inside of a host call"),
    attack!(
        "retained",
        subscriptions::retained,
        Passwords,
        Program,
        "128 SUBSCRIBEs of 256 filters over 9990 retained messages"
    ),
    attack!(
        "unfinished",
        uploads::unfinished,
        Passwords,
        Program,
        "300 connections send 15.9 of 16 MB and stop"
    ),
    attack!(
        "deep-filters",
        subscriptions::deep,
        Passwords,
        Program,
        "60 sessions with 1024 filters of 62 levels"
    ),
    attack!(
        "stray-answers",
        answers::stray,
        Passwords,
        Program,
        "requests with an empty reply id whose asker takes no answer"
    ),
    attack!(
        "overlapping",
        subscriptions::overlapping,
        Passwords,
        Program,
        "1000 sessions with 1024 filters that one answer matches"
    ),
    attack!(
        "shared-answers",
        answers::shared,
        Passwords,
        Program,
        "500 connections ask, and all hear every answer"
    ),
    attack!("native-bursts", native::bursts, Passwords, Program, "28 processes compute 50 us and sleep 1 us"),
    attack!("native-bursts-two", native::bursts_of_two, Passwords, Program, "the same by two accounts"),
    attack!(
        "large-wills",
        connects::large_wills,
        Passwords,
        Program,
        "1000 CONNECTs with wrong passwords and large wills"
    ),
    attack!(
        "hoarded-sessions",
        sessions::hoard,
        Passwords,
        Program,
        "32766 sessions, kept for as long as the broker allows"
    ),
    attack!(
        "removed-user",
        accounts::removed,
        Passwords,
        Program,
        "a user is removed while its log-ins wait"
    ),
    attack!(
        "foreseen-user",
        accounts::foreseen,
        Passwords,
        Program,
        "a client id is taken before its user exists"
    ),
    attack!("guessing", connects::guessing, Passwords, Program, "wrong passwords from 200 connections"),
    attack!(
        "guessing-900",
        connects::guessing_by_many,
        Passwords,
        Program,
        "wrong passwords from 900 connections"
    ),
    attack!(
        "cbor-values",
        decoding::cbor_values,
        Passwords,
        Program,
        "CBOR of 65280 values from 64 connections"
    ),
    attack!("large-arguments", decoding::arguments, Passwords, Program, "14 MB of arguments"),
    attack!(
        "user-properties",
        decoding::user_properties,
        Passwords,
        Program,
        "48000 user properties in each request"
    ),
    attack!(
        "refused-filters",
        subscriptions::refused,
        Passwords,
        Program,
        "SUBSCRIBEs that are refused, as fast as possible"
    ),
    attack!("large-modules", modules::large, Passwords, Program, "120 modules with 7 MB of data"),
    attack!(
        "compiles",
        modules::compiles,
        Passwords,
        NewModule,
        "four accounts send modules that are slow to compile"
    ),
    attack!(
        "background-compiles",
        modules::background_compiles,
        Passwords,
        NewModule,
        "modules that are optimized behind their first answer"
    ),
    attack!("native-sleepers", native::sleepers, Passwords, NewSource, "two accounts' native programs sleep"),
    attack!(
        "sleepers",
        modules::sleepers,
        Open,
        NewModule,
        "1000 client ids without names have guests that sleep"
    ),
    attack!(
        "first-slices",
        modules::first_slices,
        Passwords,
        Program,
        "guests grow and fill 63 MB in their first slice"
    ),
    attack!("guest-log", modules::log_flood, Passwords, Program, "guests call what the gateway might log"),
    attack!(
        "unreleased",
        sessions::unreleased,
        Passwords,
        Program,
        "QoS 2 identifiers that are never released, over reconnects"
    ),
];
