//! What routers say.

use http::Request;
use hyper::body::Incoming;

use super::super::Api;
use super::super::answer::{Refusal, Response};
use super::super::dtabs::read_bytes;
use super::{Named, json};
use crate::change::live::Report;
use crate::change::shapes::{Connected, Reported, Routers};

/// A report has at most so many bytes.
const REPORT_BYTES: usize = 1024 * 1024;

impl Api {
    pub(super) async fn report(
        &self,
        request: Request<Incoming>,
        named: &Named,
    ) -> Result<Response, Refusal> {
        let body = read_bytes(request, REPORT_BYTES).await?;
        let report: Report = serde_json::from_slice(&body)
            .map_err(|error| Refusal::bad(format!("this is no report: {error}")))?;
        let reported = self.names.live().report(&named.id, report);
        let namespace = reported.map_err(Refusal::bad)?;
        let stored = self.store.get(&namespace).await?;
        json(&Reported {
            number: stored.map(|stored| stored.record.number),
        })
    }

    pub(super) fn connected(&self) -> Result<Response, Refusal> {
        let routers = self.names.live().routers().into_iter();
        json(&Routers {
            routers: routers
                .map(|(id, report)| Connected { id, report })
                .collect(),
        })
    }
}
