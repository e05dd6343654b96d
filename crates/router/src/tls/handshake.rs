//! From a socket to a TLS connection, in bounded time, and for clients in bounded numbers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::{ClientKeys, ServerKeys, Stream, TlsCheck, TlsFailure};
use crate::settings::Trust;
use crate::timer::Timer;

/// A client's handshake takes no longer than this, from its connection on.
const CLIENT_TIME: Duration = Duration::from_secs(10);
/// Handshakes of clients under way on a worker; a further one takes the place of the one that is under way for longest.
const AT_ONCE: usize = 512;

/// What a TLS record of a handshake begins with.
const HANDSHAKE: u8 = 22;

/// The handshakes under way on one worker. An honest one takes milliseconds, so of too many the oldest is the one to give
/// up: who opens connections and says nothing keeps nobody else out.
#[derive(Default)]
pub(crate) struct Crowd(RefCell<VecDeque<Rc<Place>>>);

#[derive(Default)]
struct Place {
    pushed_out: Cell<bool>,
    told: Notify,
}

/// A place in the crowd, until the handshake ends.
struct InCrowd<'a> {
    crowd: &'a Crowd,
    place: Rc<Place>,
}

impl Crowd {
    fn enter(&self) -> InCrowd<'_> {
        let place = Rc::new(Place::default());
        let mut all = self.0.borrow_mut();
        if all.len() >= AT_ONCE
            && let Some(oldest) = all.pop_front()
        {
            oldest.pushed_out.set(true);
            oldest.told.notify_one();
        }
        all.push_back(Rc::clone(&place));
        InCrowd { crowd: self, place }
    }
}

impl Drop for InCrowd<'_> {
    fn drop(&mut self) {
        if !self.place.pushed_out.get() {
            let mut all = self.crowd.0.borrow_mut();
            all.retain(|one| !Rc::ptr_eq(one, &self.place));
        }
    }
}

/// What became of a client's connection to a TLS listener.
pub(crate) enum Incoming {
    /// It is under TLS now.
    Secure(Box<Stream>),
    /// It speaks plain HTTP, or something else that is no TLS: the connection, to say so.
    Plain(TcpStream),
    /// It was closed before it said anything: a health check of a load balancer, most likely.
    Silent,
    /// Its handshake failed.
    Failed(TlsFailure),
    /// Too many were under way, and this one for longest.
    PushedOut,
}

/// Makes a TLS connection of a client's socket.
pub(crate) async fn accept(
    tcp: TcpStream,
    keys: &ServerKeys,
    crowd: &Crowd,
    timer: &Timer,
) -> Incoming {
    let place = crowd.enter();
    timer.arm_in(CLIENT_TIME);
    let shaking = shake(tcp, keys);
    let result = tokio::select! {
        biased;
        result = shaking => result,
        () = timer.expired() => Incoming::Failed(TlsFailure::new(
            TlsCheck::Slow,
            format!("the client's handshake was not done within {CLIENT_TIME:?}"),
        )),
        () = place.place.told.notified() => Incoming::PushedOut,
    };
    timer.disarm();
    result
}

async fn shake(tcp: TcpStream, keys: &ServerKeys) -> Incoming {
    let mut first = [0];
    match tcp.peek(&mut first).await {
        Ok(0) => return Incoming::Silent,
        Ok(_) if first[0] != HANDSHAKE => return Incoming::Plain(tcp),
        Ok(_) => {}
        Err(_) => return Incoming::Silent,
    }
    let session = match ServerConnection::new(keys.now()) {
        Ok(session) => session,
        Err(error) => {
            let failure = TlsFailure::new(TlsCheck::Configuration, error.to_string());
            return Incoming::Failed(failure);
        }
    };
    let mut stream = Box::new(Stream::new(tcp, session.into()));
    match poll_fn(|cx| stream.poll_handshake(cx)).await {
        Ok(()) => Incoming::Secure(stream),
        Err(error) => Incoming::Failed(TlsFailure::of(&error)),
    }
}

/// Makes a TLS connection of a socket to an endpoint. The caller limits the time. Cancel safe: the connection is lost.
pub(crate) async fn connect(
    tcp: TcpStream,
    keys: &ClientKeys,
    name: Option<&str>,
    endpoint: SocketAddr,
) -> Result<Box<Stream>, TlsFailure> {
    let name = server_name(name, keys, endpoint)?;
    let session = ClientConnection::new(keys.now(), name)
        .map_err(|error| TlsFailure::new(TlsCheck::Configuration, error.to_string()))?;
    let mut stream = Box::new(Stream::new(tcp, session.into()));
    let shaken = poll_fn(|cx| stream.poll_handshake(cx)).await;
    shaken.map_err(|error| TlsFailure::of(&error))?;
    Ok(stream)
}

/// The name that is asked for and checked; of an IP address nothing is sent.
fn server_name(
    name: Option<&str>,
    keys: &ClientKeys,
    endpoint: SocketAddr,
) -> Result<ServerName<'static>, TlsFailure> {
    let Some(name) = name else {
        return match keys.from().trust != Trust::Anything {
            false => Ok(ServerName::IpAddress(endpoint.ip().into())),
            true => Err(TlsFailure::new(
                TlsCheck::Configuration,
                "tls is configured with validation but `commonName` is not set: give the name that the endpoint's certificate has",
            )),
        };
    };
    ServerName::try_from(name.to_owned()).map_err(|_| {
        TlsFailure::new(
            TlsCheck::Configuration,
            format!("`commonName` is {name:?} for this client, which is no host name"),
        )
    })
}
