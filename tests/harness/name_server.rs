//! A name server for tests, on loopback: it says what a test tells it to, over UDP and TCP, and keeps what it was asked.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

/// A running name server. It stops when it is dropped.
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    // Dropping it ends what runs in it.
    serving: JoinSet<()>,
}

#[derive(Default)]
struct Zone {
    answers: BTreeMap<(String, RecordType), Says>,
    manner: Manner,
    asked: Vec<Asked>,
}

/// Records and their time to live in seconds.
type Says = (Vec<RData>, u32);

/// How everything is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// As the zone says.
    #[default]
    Right,
    /// With a failure of the server.
    Failing,
    /// Not at all.
    Silent,
    /// Over UDP with the word that it does not fit; over TCP as the zone says.
    Truncating,
    /// As the zone says, after a while.
    Slow(Duration),
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The name, in lower case and with its final dot.
    pub name: String,
    /// Which records: `A`, `AAAA`, `SRV`.
    pub kind: String,
    /// Whether it came over TCP.
    pub tcp: bool,
}

impl NameServer {
    /// Listens on a free loopback port, with nothing in its zone: there is no such name.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// As [`NameServer::start`], at an address.
    ///
    /// # Panics
    /// When somebody else is there.
    pub async fn start_at(address: SocketAddr) -> Self {
        let (tcp, udp) = bind(address).await.expect("the port is free");
        let address = tcp.local_addr().expect("it is bound");
        let zone: Arc<Mutex<Zone>> = Arc::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve_tcp(tcp, Arc::clone(&zone)));
        serving.spawn(serve_udp(udp, Arc::clone(&zone)));
        Self { address, zone, serving }
    }

    /// Where it listens, as a site file names it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives a name these addresses, and no others, for `ttl` seconds. Without any it exists all the same.
    ///
    /// # Panics
    /// When one is no address.
    pub fn host(&self, name: &str, addresses: &[&str], ttl: u32) {
        let mut zone = lock(&self.zone);
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address.parse().expect("an address") {
                IpAddr::V4(ip) => ipv4.push(RData::A(rdata::A(ip))),
                IpAddr::V6(ip) => ipv6.push(RData::AAAA(rdata::AAAA(ip))),
            }
        }
        zone.answers.insert((absolute(name), RecordType::A), (ipv4, ttl));
        zone.answers.insert((absolute(name), RecordType::AAAA), (ipv6, ttl));
    }

    /// Gives a name these SRV records: priority, weight, port and host.
    ///
    /// # Panics
    /// When a host is no name.
    pub fn service(&self, name: &str, records: &[(u16, u16, u16, &str)], ttl: u32) {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            let host = Name::from_ascii(absolute(host)).expect("a name");
            RData::SRV(rdata::SRV::new(*priority, *weight, *port, host))
        };
        let says = (records.iter().map(record).collect(), ttl);
        lock(&self.zone).answers.insert((absolute(name), RecordType::SRV), says);
    }

    /// Makes a name another word for a second one.
    ///
    /// # Panics
    /// When that is no name.
    pub fn alias(&self, name: &str, of: &str, ttl: u32) {
        let of = Name::from_ascii(absolute(of)).expect("a name");
        let says = (vec![RData::CNAME(rdata::CNAME(of))], ttl);
        lock(&self.zone).answers.insert((absolute(name), RecordType::CNAME), says);
    }

    /// Takes a name away.
    pub fn remove(&self, name: &str) {
        lock(&self.zone).answers.retain(|(known, _), _| *known != absolute(name));
    }

    /// Answers in another manner from now on.
    pub fn be(&self, manner: Manner) {
        lock(&self.zone).manner = manner;
    }

    /// The questions so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.zone).asked.clone()
    }

    /// How often it was asked for a name, of whatever kind.
    pub fn count(&self, name: &str) -> usize {
        self.asked().iter().filter(|asked| asked.name == absolute(name)).count()
    }

    /// Ends, with all its sockets.
    pub async fn stop(mut self) {
        self.serving.shutdown().await;
    }
}

fn absolute(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name.ends_with('.') { name } else { name + "." }
}

/// One port for both.
async fn bind(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let mut refused = None;
    for _ in 0..50 {
        let tcp = TcpListener::bind(address).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| io::Error::other("no port")))
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let socket = Arc::new(socket);
    let mut buffer = [0; 4096];
    let mut answering = JoinSet::new();
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let (zone, socket, question) = (Arc::clone(&zone), Arc::clone(&socket), buffer[..length].to_vec());
        answering.spawn(async move {
            if let Some(answer) = answer(&question, false, &zone).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    let mut conversations = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let zone = Arc::clone(&zone);
        conversations.spawn(async move { drop(converse(stream, &zone).await) });
    }
}

async fn converse(mut stream: TcpStream, zone: &Mutex<Zone>) -> io::Result<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        if let Some(answer) = answer(&question, true, zone).await {
            stream.write_u16(answer.len().try_into().map_err(io::Error::other)?).await?;
            stream.write_all(&answer).await?;
        }
    }
}

async fn answer(question: &[u8], tcp: bool, zone: &Mutex<Zone>) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?;
    let name = query.name().to_ascii().to_ascii_lowercase();
    let manner = {
        let mut zone = lock(zone);
        zone.asked.push(Asked { name, kind: query.query_type().to_string(), tcp });
        zone.manner
    };
    if let Manner::Slow(pause) = manner {
        tokio::time::sleep(pause).await;
    }
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match manner {
        Manner::Silent => return None,
        Manner::Failing => answer.metadata.response_code = ResponseCode::ServFail,
        Manner::Truncating if !tcp => answer.metadata.truncation = true,
        Manner::Right | Manner::Slow(_) | Manner::Truncating => {
            fill(&mut answer, query.name().clone(), query.query_type(), &lock(zone));
        }
    }
    answer.to_vec().ok()
}

fn fill(answer: &mut Message, mut name: Name, kind: RecordType, zone: &Zone) {
    let key = |name: &Name, kind| (name.to_ascii().to_ascii_lowercase(), kind);
    while let Some((aliases, ttl)) = zone.answers.get(&key(&name, RecordType::CNAME)) {
        let Some(RData::CNAME(of)) = aliases.first() else { return };
        answer.add_answer(Record::from_rdata(name, *ttl, aliases[0].clone()));
        name = of.0.clone();
    }
    let known = zone.answers.keys().any(|(known, _)| *known == key(&name, kind).0);
    if !known {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    let Some((records, ttl)) = zone.answers.get(&key(&name, kind)) else { return };
    for record in records {
        answer.add_answer(Record::from_rdata(name.clone(), *ttl, record.clone()));
    }
}

// Guards the zone while a question is answered or a test changes it.
fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}
