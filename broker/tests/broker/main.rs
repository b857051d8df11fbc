//! The broker from outside: a real listener on a free port, and clients that send exactly the bytes they mean
//! to. Nothing waits for a fixed time: what must not arrive is shown by what arrives next.

mod access;
mod application;
mod bridges;
mod certificates;
mod client;
mod connect;
mod damage;
mod disconnect;
mod fake_storage;
mod hostile;
mod limits;
mod log;
mod messages;
mod queues;
mod rates;
mod real_clients;
mod rebuilt;
mod retained;
mod server;
mod sessions;
mod storage;
mod subscriptions;
mod sys;
mod tls;
mod websocket;
mod wills;
