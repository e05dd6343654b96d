//! From a request to a response, on one node. A request passes the files in this order: [`server`] accepts its connection
//! and gives it to a worker, `connection` reads its head, `stage` lends it memory (`kept` has what nobody uses now), `handle` walks it through all its steps (**start reading
//! there**): `context` takes the `l5d-*` and trace headers, `identify` names it (`/svc/web`), `routes` has the name
//! bound (by `naming`), `prepare` makes the head that goes up, `attempts` has `balance` pick an endpoint, `client` has the
//! connection to it (`idle` those that wait for their next request), `exchange` sends and receives, `classify` judges the answer and `failed` what went wrong, `deliver`
//! passes the answer on, `respond` makes answers of errors, `tunnel` is what becomes of an upgrade and of CONNECT. `stats`
//! and `spans` are what is told about it.
//!
//! Not here: what a dtab means (`dtab`), where endpoints come from (`naming`), Kubernetes, YAML.

mod access_log;
mod accrual;
mod attempts;
mod balance;
mod budget;
mod call;
mod classify;
mod client;
mod connection;
mod context;
mod deliver;
mod diagnose;
mod ending;
mod entrance;
mod exchange;
mod failed;
mod forwarded;
mod guard;
mod handle;
pub mod http1;
mod identify;
mod idle;
mod io;
mod kept;
mod pool;
mod prepare;
mod respond;
mod router;
mod routes;
mod secure;
pub mod server;
pub mod settings;
mod splice;
mod stage;
mod stats;
mod timer;
pub mod tls;
mod tunnel;
mod unanswered;
mod worker;
mod wrap;

pub use identify::{Identified, NotIdentified, identify_head};
pub use pool::NoPlace;
pub use respond::RouteError;
pub use router::{ClientState, Reporting, Router};
pub use server::{DataPlane, Drained, Kept, Prepared, StartError, Swapped};
pub use settings::RouterSettings;
