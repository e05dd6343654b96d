//! One shelf of pages, for the router and for the dtab store. Whoever owns a state puts its page on the [`Admin`] shelf;
//! this crate knows how pages are found, guarded, listed and styled, and nothing of the types behind them.
//!
//! In reading order: [`shelf`] is the shelf, its dispatch and its listener; [`guard`] says who may see or change what;
//! [`ready`] collects what a process still waits for; the `*_page` modules put the common pages on the shelf:
//! metrics, logging, process (ping, shutdown, server info), a router's own: overview, delegator, requests; and the
//! store's: dtabs.
//!
//! Not here: what a dtab, a namer or a request is. Those come as closures that return JSON, or plain rows.

mod assets;
mod delegator_page;
mod dtabs_page;
mod guard;
mod html;
mod logging_page;
mod metrics_page;
mod overview;
mod process_page;
mod ready;
mod request_line;
mod requests_page;
mod shelf;
mod states_page;

pub use delegator_page::{BadText, DelegateError, DelegateRequest, RouterInfo};
pub use dtabs_page::DtabRow;
pub use guard::{PathPattern, Security, SecurityError};
pub use html::Instance;
pub use logging_page::{LogLevels, Logger};
pub use ready::{Condition, Readiness};
pub use request_line::Lenient;
pub use requests_page::{RequestRow, RequestsView};
pub use shelf::{Admin, AdminConfig, AdminError, BoxFuture, Current, Listening};
