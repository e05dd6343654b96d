//! Certificates that a start would not take, or that will soon not be valid any more.

use std::time::{Duration, SystemTime};

use router::tls::{TlsFileError, Validity, examine_client, examine_server};

use super::{Environment, Lint, Node, Place, Purpose, RouterConfig, items};

/// A certificate that ends within this time, or within the last third of its own, is told about.
const SOON: Duration = Duration::from_secs(30 * 86_400);

impl Lint<'_> {
    /// All of a router's `tls`.
    pub(super) fn certificates(
        &mut self,
        at: &str,
        router: &RouterConfig,
        node: &Node,
        environment: &Environment,
    ) {
        if environment.purpose == Purpose::Text {
            return;
        }
        let servers = items(node.get("servers"));
        for (i, (server, node)) in router.router.servers.iter().zip(&servers).enumerate() {
            if let Some(tls) = &server.tls {
                let at = format!("{at}.servers[{i}].tls");
                self.examined(&at, node, examine_server(tls));
            }
        }
        if let (Some(tls), Some(node)) = (&router.interpreter.store_tls, node.get("interpreter")) {
            let at = format!("{at}.interpreter.tls");
            self.examined(&at, node, examine_client(tls));
        }
        let Some(client) = node.get("client") else {
            return;
        };
        let configs = items(client.get("configs"));
        let entries = match configs.is_empty() {
            true => vec![(format!("{at}.client.tls"), client.clone())],
            false => (0..)
                .zip(configs)
                .map(|(i, one)| (format!("{at}.client.configs[{i}].tls"), one))
                .collect(),
        };
        for ((_, part), (at, node)) in router.router.client.entries.iter().zip(entries) {
            if let Some(tls) = part.tls.as_ref().filter(|tls| tls.enabled) {
                self.examined(&at, &node, examine_client(tls));
            }
        }
    }

    fn examined(&mut self, at: &str, node: &Node, found: Result<Vec<Validity>, TlsFileError>) {
        let place = node.entry("tls").map_or_else(Place::default, |e| e.place);
        match found {
            Err(error) => self.problems.error(at, place, error.to_string(), None),
            Ok(all) => {
                for one in all {
                    self.validity(at, place, &one);
                }
            }
        }
    }

    fn validity(&mut self, at: &str, place: Place, one: &Validity) {
        let now = SystemTime::now();
        let path = one.path.display();
        let help =
            Some("renew it; a router that runs takes the new file without a restart".to_owned());
        if one.from > now {
            let message = format!("the certificate in {path} is not valid yet");
            let help = Some("look at this machine's clock".to_owned());
            return self.problems.warning(at, place, message, help);
        }
        let Ok(left) = one.until.duration_since(now) else {
            let message = format!("the certificate in {path} has expired");
            return self.problems.warning(at, place, message, help);
        };
        let life = one.until.duration_since(one.from).unwrap_or_default();
        if left < SOON.min(life / 3) {
            let days = left.as_secs() / 86_400;
            let when = match days {
                0 => format!("{} hours", left.as_secs() / 3600),
                days => format!("{days} days"),
            };
            let message = format!("the certificate in {path} expires in {when}");
            self.problems.warning(at, place, message, help);
        }
    }
}
