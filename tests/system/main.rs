//! Millstream as a whole: its binary, a real Kafka, and a judge that shares no code with it. One
//! binary, so that it links once. Needs Java 17, Maven and openssl; the first run fetches Kafka.

#![forbid(unsafe_code)]

mod admin;
mod bad_input;
mod beneath;
mod c_plugin;
mod chaos;
mod cli;
mod commands;
mod counting;
mod dead_letters;
mod dice;
mod embedded;
mod exactly_once;
mod example;
mod fleet;
mod graphs;
mod hostile;
mod limits;
mod lookups;
mod next_life;
mod openapi;
mod passthrough;
mod pipelines;
mod proxy_proofs;
mod queries;
mod quickstart;
mod reloads;
mod rig_proofs;
mod routing;
mod several;
mod snapshots;
mod stage;
mod states;
mod storm;
mod telemetry;
mod tidy;
mod timings;
mod vectors;
mod walkthrough;
