//! Millstream plugins in Rust. A plugin is a function, or a type, that takes one record and says
//! what becomes of it:
//!
//! ```
//! use millstream_plugin::{Record, Result, plugin};
//!
//! fn has_key(record: Record<'_>) -> Result<bool> {
//!     Ok(record.key().is_some())
//! }
//!
//! plugin!(filter: has_key);
//! # fn main() {}
//! ```
//!
//! With configuration, ports or more than one output record it is a type that implements
//! [`Transform`]. Whoever wants whole batches implements [`batch::BatchTransform`]. [`lookup()`] reads
//! the tables that the pipeline file grants, and [`state()`] keeps what has to last.
//!
//! The crate compiles natively too, and [`testing`] runs a plugin there, so that its logic is tested
//! by `cargo test` without WASM.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod batch;
#[allow(warnings, clippy::all, clippy::pedantic, clippy::restriction, missing_docs, unsafe_code)]
#[rustfmt::skip]
pub mod bindings;
pub mod config;
mod edit;
#[doc(hidden)]
#[allow(missing_docs)]
pub mod export;
mod found;
pub mod json;
pub mod log;
mod lookup;
mod merge;
mod output;
mod record;
mod state;
mod step;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod text;
mod transform;

pub use batch::Needs;
pub use config::NoConfig;
pub use edit::Edit;
pub use found::Found;
pub use lookup::{Lookup, lookup, lookup_if_granted};
pub use output::{Emit, Outputs, Port};
pub use record::Record;
pub use state::{State, state};
pub use text::Text;
pub use transform::{PerRecord, Transform, filter, flat_map, json, map};

/// Anything with words: `?` takes any error, and `Err("the reason".into())` needs none.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A result whose error is shown to a person.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Makes the crate a plugin. Its name and version are those of the package. To be called once, with
///
/// - `plugin!(Type)`: a [`Transform`];
/// - `plugin!(batch: Type)`: a [`batch::BatchTransform`];
/// - `plugin!(filter: f)`, `plugin!(map: f)`, `plugin!(flat_map: f)`, `plugin!(json: f)`: a function
///   as [`filter()`], [`map()`], [`flat_map()`] and [`json()`] take it. With a configuration,
///   `plugin!(filter: f, Config)`, its first parameter is a `&Config`. With tables that it looks up,
///   `plugin!(filter: f; lookups: "countries", "plans")`, and with state
///   `plugin!(map: f; state: "totals")`; where there are both, tables come first. The macro defines
///   `Plugin`, a [`Transform`] that tests can use.
#[macro_export]
macro_rules! plugin {
    (batch: $plugin:ty) => {
        #[allow(dead_code, unsafe_code)]
        const _: () = {
            use $crate::bindings::exports::millstream::plugin::transform as contract;

            ::std::thread_local! {
                static SLOT: $crate::export::Slot<$plugin> =
                    const { $crate::export::Slot::new(None) };
            }

            struct Exported;

            impl contract::Guest for Exported {
                fn describe() -> contract::Description {
                    let version = ::core::env!("CARGO_PKG_VERSION");
                    $crate::export::describe::<$plugin>(::core::env!("CARGO_PKG_NAME"), version)
                }

                fn configure(config: String) -> ::core::result::Result<contract::Needs, String> {
                    SLOT.with(|slot| $crate::export::configure(slot, &config))
                }

                fn process(
                    batch: contract::Batch,
                ) -> ::core::result::Result<contract::Outcome, String> {
                    SLOT.with(|slot| $crate::export::process(slot, batch))
                }
            }

            #[cfg(target_family = "wasm")]
            $crate::bindings::export!(Exported with_types_in $crate::bindings);
        };
    };
    (
        filter: $function:path $(, $config:ty)? $(; lookups: $($table:literal),+)? $(; state: $($store:literal),+)?
    ) => {
        $crate::plugin!(@function filter, [$($($table)+)?; $($($store)+)?], $function $(, $config)?);
    };
    (
        map: $function:path $(, $config:ty)? $(; lookups: $($table:literal),+)? $(; state: $($store:literal),+)?
    ) => {
        $crate::plugin!(@function map, [$($($table)+)?; $($($store)+)?], $function $(, $config)?);
    };
    (
        flat_map: $function:path $(, $config:ty)? $(; lookups: $($table:literal),+)? $(; state: $($store:literal),+)?
    ) => {
        $crate::plugin!(@function flat_map, [$($($table)+)?; $($($store)+)?], $function $(, $config)?);
    };
    (
        json: $function:path $(, $config:ty)? $(; lookups: $($table:literal),+)? $(; state: $($store:literal),+)?
    ) => {
        $crate::plugin!(@function json, [$($($table)+)?; $($($store)+)?], $function $(, $config)?);
    };
    (@function $kind:ident, $asked:tt, $function:path) => {
        $crate::plugin!(@type $kind, $asked, $crate::NoConfig, |_config, input| $function(input));
    };
    (@function $kind:ident, $asked:tt, $function:path, $config:ty) => {
        $crate::plugin!(@type $kind, $asked, $config, |config, input| $function(config, input));
    };
    (
        @type $kind:ident, [$($table:literal)*; $($store:literal)*], $config:ty,
        |$settings:ident, $input:ident| $call:expr
    ) => {
        /// The function as a plugin.
        pub struct Plugin {
            config: $config,
        }

        impl $crate::Transform for Plugin {
            type Config = $config;

            fn new(config: $config) -> $crate::Result<Self> {
                $($crate::lookup($table);)*
                $($crate::state($store);)*
                Ok(Plugin { config })
            }

            fn process(
                &mut self,
                record: $crate::Record<'_>,
                out: &mut $crate::Outputs<'_>,
            ) -> $crate::Result<()> {
                let $settings = &self.config;
                $crate::$kind(record, out, |$input| $call)
            }
        }

        $crate::plugin!(Plugin);
    };
    ($plugin:ty) => {
        $crate::plugin!(batch: $crate::PerRecord<$plugin>);
    };
}

/// The README's plugins compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
