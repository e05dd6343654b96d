//! Single nodes of ZooKeeper: read, followed, and written on the condition that they are as they were read.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::session::{Connection, Identity, Session, ZkError};
use super::wire::{self, Event, Op, WireError};

pub use super::wire::Stat;

/// A request beyond this is cut off by a server that has its defaults (`jute.maxbuffer`), connection and all.
pub const LARGEST: usize = (1 << 20) - 1024;

const CREATE: i32 = 15;
const DELETE: i32 = 2;
const DATA: i32 = 4;
const SET: i32 = 5;
const CHILDREN: i32 = 8;
const SYNC: i32 = 9;
const CHILDREN_WITH_STAT: i32 = 12;

const BAD_VERSION: i32 = -103;
const EXISTS: i32 = -110;
const NO_ACL: i32 = -114;

/// Who may do what with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Such as `world`, `digest`.
    pub scheme: String,
    /// Such as `anyone`.
    pub id: String,
    /// 1 read, 2 write, 4 create, 8 delete, 16 administer; added.
    pub perms: i32,
}

/// Where ZooKeeper is, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Its servers; at least one.
    pub servers: Vec<(Arc<str>, u16)>,
    /// After as long without a word a connection is lost.
    pub timeout: Duration,
    /// A scheme, and what it takes.
    pub auth: Option<(String, String)>,
    /// Of the nodes that are made.
    pub acls: Vec<Acl>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Whether it was done is not known.
    #[error("{0}")]
    Unanswered(Arc<str>),
    /// Its access lists forbid it, or have no sense.
    #[error("ZooKeeper does not allow it: {0}")]
    Forbidden(String),
    /// The request is longer than a server takes.
    #[error("{0} bytes are more than the {LARGEST} that ZooKeeper takes (`jute.maxbuffer`)")]
    TooLarge(usize),
}

/// A client with a connection of its own.
pub struct ZkClient {
    session: Session,
    acls: Vec<Acl>,
}

/// Nodes that are followed within one connection.
pub struct Followed {
    connection: Connection,
    told: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
}

/// A node as it was read.
pub type Node = (Bytes, Stat);

impl ZkClient {
    /// Connects at once, on `control`.
    #[must_use]
    pub fn new(config: ClientConfig, control: &Handle) -> Self {
        let identity = Identity {
            auth: config.auth,
            timeout: Some(config.timeout),
        };
        Self {
            session: Session::having(identity, config.servers, control),
            acls: config.acls,
        }
    }

    fn connection(&self) -> Result<Connection, NodeError> {
        let standing = self.session.standing();
        let now = standing.borrow();
        now.connection.clone().ok_or_else(|| {
            let problem = now.problem.clone();
            NodeError::Unanswered(
                problem.unwrap_or_else(|| "ZooKeeper is being connected to".into()),
            )
        })
    }

    async fn command(
        &self,
        code: i32,
        put: impl FnOnce(&mut BytesMut) + Send + 'static,
    ) -> Result<Option<Bytes>, ZkError> {
        let gone = |_| ZkError::Gone;
        let connection = self.connection().map_err(gone)?;
        connection
            .send(move |number| wire::command(number, code, put))
            .answer()
            .await
    }

    fn failed(&self, error: ZkError) -> NodeError {
        match error {
            ZkError::Gone => match self.connection() {
                Err(problem) => problem,
                Ok(_) => NodeError::Unanswered("ZooKeeper: the connection broke".into()),
            },
            ZkError::Wire(WireError::NotAllowed) => {
                NodeError::Forbidden("the node's access list".to_owned())
            }
            ZkError::Wire(WireError::Code(NO_ACL)) => {
                NodeError::Forbidden("`acls` is no access list for it".to_owned())
            }
            ZkError::Wire(error) => NodeError::Unanswered(format!("ZooKeeper: {error}").into()),
        }
    }

    /// A node as it is now, whichever server is asked: what was written before is seen.
    ///
    /// # Errors
    /// Of any sort; nothing is changed.
    pub async fn read(&self, path: &str) -> Result<Option<Node>, NodeError> {
        let (sync, read) = (path.to_owned(), path.to_owned());
        let put = move |out: &mut BytesMut| wire::put_buffer(out, sync.as_bytes());
        self.command(SYNC, put)
            .await
            .map_err(|error| self.failed(error))?;
        let put = move |out: &mut BytesMut| {
            wire::put_buffer(out, read.as_bytes());
            out.put_u8(0);
        };
        let body = self
            .command(DATA, put)
            .await
            .map_err(|error| self.failed(error))?;
        body.map(|body| self.node(body)).transpose()
    }

    fn node(&self, body: Bytes) -> Result<Node, NodeError> {
        let failed = |error| self.failed(ZkError::Wire(error));
        let stat = wire::stat(&body).map_err(failed)?;
        Ok((wire::data(body).map_err(failed)?, stat))
    }

    /// The names of a node's children; none when it is not there.
    ///
    /// # Errors
    /// Of any sort.
    pub async fn children(&self, path: &str) -> Result<Vec<String>, NodeError> {
        let path = path.to_owned();
        let put = move |out: &mut BytesMut| {
            wire::put_buffer(out, path.as_bytes());
            out.put_u8(0);
        };
        let body = self
            .command(CHILDREN, put)
            .await
            .map_err(|error| self.failed(error))?;
        let names = body.map(wire::children).transpose();
        Ok(names
            .map_err(|error| self.failed(ZkError::Wire(error)))?
            .unwrap_or_default())
    }

    /// Makes a node, and those above it; none when it is there already.
    ///
    /// # Errors
    /// Of any sort.
    pub async fn create(&self, path: &str, data: &[u8]) -> Result<Option<Stat>, NodeError> {
        match self.create_one(path, data).await? {
            Created::Now(stat) => return Ok(Some(stat)),
            Created::Before => return Ok(None),
            Created::Orphan => {}
        }
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        for above in above.filter(|above| !above.is_empty()) {
            self.create_one(above, b"").await?;
        }
        match self.create_one(path, data).await? {
            Created::Now(stat) => Ok(Some(stat)),
            Created::Before => Ok(None),
            Created::Orphan => Err(NodeError::Unanswered(
                format!("ZooKeeper: what is above {path} goes away as it is made").into(),
            )),
        }
    }

    async fn create_one(&self, path: &str, data: &[u8]) -> Result<Created, NodeError> {
        fits(data)?;
        let (path, data, acls) = (path.to_owned(), data.to_vec(), self.acls.clone());
        let put = move |out: &mut BytesMut| {
            wire::put_buffer(out, path.as_bytes());
            wire::put_buffer(out, &data);
            out.put_i32(i32::try_from(acls.len()).unwrap_or(0));
            for acl in &acls {
                out.put_i32(acl.perms);
                wire::put_buffer(out, acl.scheme.as_bytes());
                wire::put_buffer(out, acl.id.as_bytes());
            }
            out.put_i32(0); // it stays when we go
        };
        match self.command(CREATE, put).await {
            Ok(Some(body)) => {
                let stat = wire::stat(&body).map_err(|error| self.failed(ZkError::Wire(error)));
                Ok(Created::Now(stat?))
            }
            Ok(None) => Ok(Created::Orphan),
            Err(ZkError::Wire(WireError::Code(EXISTS))) => Ok(Created::Before),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Puts other data into a node that has that version, or any (-1); none when it has not, or is not there.
    ///
    /// # Errors
    /// Of any sort.
    pub async fn set(
        &self,
        path: &str,
        data: &[u8],
        version: i32,
    ) -> Result<Option<Stat>, NodeError> {
        fits(data)?;
        let (path, data) = (path.to_owned(), data.to_vec());
        let put = move |out: &mut BytesMut| {
            wire::put_buffer(out, path.as_bytes());
            wire::put_buffer(out, &data);
            out.put_i32(version);
        };
        match self.command(SET, put).await {
            Ok(Some(body)) => {
                let stat = wire::stat(&body).map_err(|error| self.failed(ZkError::Wire(error)));
                Ok(Some(stat?))
            }
            Ok(None) | Err(ZkError::Wire(WireError::Code(BAD_VERSION))) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Takes a node away that has that version, or any (-1); false when it has not, or is not there.
    ///
    /// # Errors
    /// Of any sort.
    pub async fn delete(&self, path: &str, version: i32) -> Result<bool, NodeError> {
        let path = path.to_owned();
        let put = move |out: &mut BytesMut| {
            wire::put_buffer(out, path.as_bytes());
            out.put_i32(version);
        };
        match self.command(DELETE, put).await {
            Ok(done) => Ok(done.is_some()),
            Err(ZkError::Wire(WireError::Code(BAD_VERSION))) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Begins to follow nodes, as soon as there is a connection.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn follow(&self) -> Result<Followed, NodeError> {
        let mut standing = self.session.standing();
        loop {
            let now = standing.borrow_and_update().clone();
            if let Some(connection) = now.connection {
                let (told, events) = mpsc::unbounded_channel();
                return Ok(Followed {
                    connection,
                    told,
                    events,
                });
            }
            if let Some(problem) = now.problem {
                return Err(NodeError::Unanswered(problem));
            }
            if standing.changed().await.is_err() {
                return Err(NodeError::Unanswered(
                    "ZooKeeper: the connection is given up".into(),
                ));
            }
        }
    }

    /// A node, with a watch on it.
    ///
    /// # Errors
    /// Of any sort.
    pub async fn watch(&self, followed: &Followed, path: &str) -> Result<Option<Node>, NodeError> {
        let asked = followed
            .connection
            .ask(Op::Data, path.to_owned(), &followed.told);
        let body = asked.answer().await.map_err(|error| self.failed(error))?;
        body.map(|body| self.node(body)).transpose()
    }

    /// The names of a node's children, with a watch on them, and its state, which is not older.
    ///
    /// # Errors
    /// Of any sort.
    pub async fn watch_children(
        &self,
        followed: &Followed,
        path: &str,
    ) -> Result<Option<(Vec<String>, Stat)>, NodeError> {
        let asked = followed
            .connection
            .ask(Op::Children, path.to_owned(), &followed.told);
        let watched = asked.answer().await.map_err(|error| self.failed(error))?;
        if watched.is_none() {
            return Ok(None);
        }
        // Once more, since that answer has no state; what changes in between sets the watch off.
        let path = path.to_owned();
        let list = followed.connection.send(move |number| {
            wire::command(number, CHILDREN_WITH_STAT, |out| {
                wire::put_buffer(out, path.as_bytes());
                out.put_u8(0);
            })
        });
        let Some(body) = list.answer().await.map_err(|error| self.failed(error))? else {
            return Ok(None);
        };
        let failed = |error| self.failed(ZkError::Wire(error));
        let stat = wire::stat(&body).map_err(failed)?;
        Ok(Some((wire::children(body).map_err(failed)?, stat)))
    }
}

impl Followed {
    /// The paths of nodes that have changed; none when the connection is gone.
    pub async fn changed(&mut self) -> Option<Vec<String>> {
        let first = tokio::select! {
            event = self.events.recv() => event?,
            () = self.connection.gone() => return None,
        };
        Some(vec![first.path])
    }

    /// The same, of what has been told by now.
    pub fn changed_already(&mut self) -> Option<Vec<String>> {
        Some(vec![self.events.try_recv().ok()?.path])
    }
}

/// What became of a node that was to be made.
enum Created {
    Now(Stat),
    Before,
    /// The node above it is not there.
    Orphan,
}

const fn fits(data: &[u8]) -> Result<(), NodeError> {
    match data.len() > LARGEST {
        true => Err(NodeError::TooLarge(data.len())),
        false => Ok(()),
    }
}
