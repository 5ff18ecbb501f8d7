//! A DHCP client for one interface (RFC 2131), over a plain socket: it asks servers to answer by broadcast, since it has no address yet.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ironyard_types::MacAddress;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, time::timeout};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// Subnet mask, router, name server, and how long it holds.
const WANTED: [u8; 4] = [1, 3, 6, 51];

/// What a server has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) router: Option<Ipv4Addr>,
    pub(super) name_servers: Vec<Ipv4Addr>,
    pub(super) server: Ipv4Addr,
    pub(super) holds: Duration,
}

/// Asks for an address until there is one.
pub(super) async fn lease(interface: &str, mac: MacAddress) -> io::Result<Lease> {
    let socket = open(interface)?;
    let mut wait = Duration::from_secs(2);
    loop {
        let transaction = transaction();
        send(&socket, &discover(mac, transaction)).await?;
        if let Some(offer) = answer(&socket, wait, mac, transaction, DhcpMessageType::Offer).await? {
            send(&socket, &request(mac, transaction, &offer)).await?;
            if let Some(lease) = answer(&socket, wait, mac, transaction, DhcpMessageType::Ack).await? {
                return Ok(lease);
            }
        }
        wait = (wait * 2).min(Duration::from_secs(16));
    }
}

/// Asks for the same address for longer; none: nobody answers, or not with that address.
pub(super) async fn renew(interface: &str, mac: MacAddress, lease: &Lease) -> io::Result<Option<Lease>> {
    let (socket, transaction) = (open(interface)?, transaction());
    send(&socket, &request(mac, transaction, lease)).await?;
    let renewed = answer(&socket, Duration::from_secs(10), mac, transaction, DhcpMessageType::Ack).await?;
    Ok(renewed.filter(|renewed| renewed.address == lease.address))
}

fn transaction() -> u32 {
    u32::from_str_radix(&ironyard_types::random_hex(4), 16).unwrap_or(1)
}

fn open(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_broadcast(true)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT)).into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

async fn send(socket: &UdpSocket, message: &[u8]) -> io::Result<()> {
    socket.send_to(message, (Ipv4Addr::BROADCAST, SERVER)).await.map(|_| ())
}

/// The answer of this kind to that transaction, if it comes in time.
async fn answer(socket: &UdpSocket, wait: Duration, mac: MacAddress, transaction: u32, kind: DhcpMessageType) -> io::Result<Option<Lease>> {
    let mut bytes = [0; 1500];
    let read = async {
        loop {
            let length = socket.recv(&mut bytes).await?;
            if let Some(lease) = read(bytes.get(..length).unwrap_or_default(), mac, transaction, kind) {
                return Ok(lease);
            }
        }
    };
    timeout(wait, read).await.ok().transpose()
}

fn hardware(mac: MacAddress) -> EthernetAddress {
    EthernetAddress(mac.octets())
}

fn message(mac: MacAddress, transaction_id: u32, message_type: DhcpMessageType) -> DhcpRepr<'static> {
    DhcpRepr {
        message_type,
        transaction_id,
        secs: 0,
        client_hardware_address: hardware(mac),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: true,
        requested_ip: None,
        client_identifier: Some(hardware(mac)),
        server_identifier: None,
        parameter_request_list: Some(&WANTED),
        dns_servers: None,
        max_size: Some(1400),
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

fn discover(mac: MacAddress, transaction: u32) -> Vec<u8> {
    bytes(&message(mac, transaction, DhcpMessageType::Discover))
}

fn request(mac: MacAddress, transaction: u32, offer: &Lease) -> Vec<u8> {
    bytes(&DhcpRepr {
        requested_ip: Some(offer.address),
        server_identifier: Some(offer.server),
        ..message(mac, transaction, DhcpMessageType::Request)
    })
}

fn bytes(message: &DhcpRepr<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    // It has room: its length was asked for.
    let _ = message.emit(&mut DhcpPacket::new_unchecked(&mut bytes));
    // As long as BOOTP's were: some relays drop what is shorter.
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

fn read(bytes: &[u8], mac: MacAddress, transaction: u32, kind: DhcpMessageType) -> Option<Lease> {
    let packet = DhcpPacket::new_checked(bytes).ok()?;
    let answer = DhcpRepr::parse(&packet).ok()?;
    let ours = answer.transaction_id == transaction && answer.client_hardware_address == hardware(mac) && answer.message_type == kind;
    let usable = ours && !answer.your_ip.is_unspecified() && !answer.your_ip.is_multicast();
    usable.then(|| Lease {
        address: answer.your_ip,
        prefix: answer
            .subnet_mask
            .map_or(24, |mask| u8::try_from(mask.to_bits().leading_ones()).unwrap_or(32)),
        // The first one, of however many.
        router: packet
            .options()
            .find(|option| option.kind == 3)
            .and_then(|option| <[u8; 4]>::try_from(option.data.get(..4)?).ok())
            .map(Ipv4Addr::from),
        name_servers: answer
            .dns_servers
            .map(|servers| servers.iter().copied().collect())
            .unwrap_or_default(),
        server: answer.server_identifier.unwrap_or(Ipv4Addr::UNSPECIFIED),
        holds: Duration::from_secs(answer.lease_duration.unwrap_or(3600).max(60).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac() -> MacAddress {
        MacAddress::parse("52:54:00:12:34:56").unwrap()
    }

    /// An offer as a server writes it, byte by byte (RFC 2131, section 2; RFC 2132).
    fn offer() -> Vec<u8> {
        let mut bytes = vec![0; 236];
        (bytes[0], bytes[1], bytes[2]) = (2, 1, 6);
        bytes[4..8].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
        bytes[16..20].copy_from_slice(&[10, 0, 2, 15]);
        bytes[28..34].copy_from_slice(&mac().octets());
        bytes.extend([99, 130, 83, 99]);
        for option in [
            &[53, 1, 2][..],
            &[54, 4, 10, 0, 2, 2],
            &[1, 4, 255, 255, 255, 0],
            &[3, 4, 10, 0, 2, 2],
            &[6, 4, 10, 0, 2, 3],
            &[51, 4, 0, 1, 81, 128],
        ] {
            bytes.extend(option);
        }
        bytes.push(255);
        bytes
    }

    #[test]
    fn an_offer_is_read_and_nothing_else_is() {
        let lease = read(&offer(), mac(), 0xdead_beef, DhcpMessageType::Offer).unwrap();
        let expected = Lease {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 0, 2, 2)),
            name_servers: vec![Ipv4Addr::new(10, 0, 2, 3)],
            server: Ipv4Addr::new(10, 0, 2, 2),
            holds: Duration::from_secs(86400),
        };
        assert_eq!(lease, expected);
        let mut two = offer();
        let router = two.windows(2).position(|window| window == [3, 4]).unwrap();
        two.splice(router..router + 6, [3, 8, 10, 0, 2, 2, 10, 0, 2, 3]);
        let lease = read(&two, mac(), 0xdead_beef, DhcpMessageType::Offer).unwrap();
        assert_eq!(lease.router, expected.router, "of two routers the first");
        let other = MacAddress::parse("52:54:00:12:34:57").unwrap();
        assert_eq!(read(&offer(), mac(), 1, DhcpMessageType::Offer), None);
        assert_eq!(read(&offer(), other, 0xdead_beef, DhcpMessageType::Offer), None);
        assert_eq!(read(&offer(), mac(), 0xdead_beef, DhcpMessageType::Ack), None);
        for cut in 0..offer().len() {
            let _ = read(&offer()[..cut], mac(), 0xdead_beef, DhcpMessageType::Offer);
        }
    }

    #[test]
    fn what_is_sent_is_what_the_standard_says() {
        let discover = discover(mac(), 0xdead_beef);
        assert_eq!(discover[..8], [1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(discover[10..12], [0x80, 0], "answers by broadcast");
        assert_eq!(discover[28..34], mac().octets());
        assert_eq!(discover[236..243], [99, 130, 83, 99, 53, 1, 1]);
        let lease = read(&offer(), mac(), 0xdead_beef, DhcpMessageType::Offer).unwrap();
        let request = request(mac(), 0xdead_beef, &lease);
        let has = |option: &[u8]| request[240..].windows(option.len()).any(|window| window == option);
        assert!(
            has(&[53, 1, 3]) && has(&[50, 4, 10, 0, 2, 15]) && has(&[54, 4, 10, 0, 2, 2]),
            "{request:?}"
        );
    }
}
