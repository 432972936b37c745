//! Packets in one line each, as `docs/protocol/rx-scenarios.md` writes them: to send, to expect, to read.
//!
//! | token | meaning |
//! |---|---|
//! | `D` `A` `BUSY` `ABORT` `ACKALL` `CHALLENGE` `RESPONSE` `VERSION` `DEBUG` `TYPE14` | type, first |
//! | `n1` `q1` | call number, seq |
//! | `s1` | serial; of an ACK the serial *field* |
//! | `h33` | the header's serial, of any packet |
//! | `[CL]` | flags: Client, Request-ack, Last, More, Jumbo; exactly these |
//! | `"x"` `len10` `x0aff` | payload: text; so many bytes (each the low byte of seq); hex |
//! | `-5` | an ABORT's code |
//! | `f2` `p1` `r9` `=IDLE` `a[0,1]` `a[1x16]` `w32` | an ACK: first, previous, reason, SACK table, window |
//! | `words3` `jumbo0` `mtu520` `excess600` `pad` | an ACK's trailer: its length and words, bytes after it, set padding |
//! | `ch2` `idx2` `svc52` `ust1` `ck1234` | channel, securityIndex, serviceId, userStatus, checksum (hex) |
//! | `bits50` | more flag bits (hex) |
//! | `epoch1234` `cid5d0e9a38` | another connection (hex) |
//!
//! `D n1 q1 [CJ] len1412 + [CL] len10` is a jumbogram.
//!
//! ```
//! use rxrpc::testkit::notation::{Defaults, parse, show};
//!
//! let datagram = parse("A n1 f2 p4 a[0,1,1] =OUT_OF_SEQUENCE").encode(&Defaults::default());
//! assert_eq!(show(&datagram), "A n1 q0 h1 [] f2 p4 s0 =OUT_OF_SEQUENCE a[0,1,1] w32");
//! assert_eq!(parse("A n1 f2").differences(&datagram), Vec::<String>::new());
//! assert_eq!(parse("A n1 f3").differences(&datagram), ["firstPacket: expected 3, got 2"]);
//! ```

use crate::wire::{
    AbortCode, Ack, AckReason, CallNumber, ChannelIndex, Cid, Epoch, Flags, FullTrailer,
    HEADER_LEN, Header, JUMBO_HEADER_LEN, Packet, PacketType, Payload, SecurityIndex, Seq, Serial,
    ServiceId, Trailer, encode_abort,
};

/// One line of notation, read. What a line does not name is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Its type.
    pub packet_type: u8,
    /// Call number.
    pub number: Option<u32>,
    /// Sequence number.
    pub seq: Option<u32>,
    /// Serial; of an ACK the serial field: what it answers.
    pub serial: Option<u32>,
    /// The header's serial, of any packet.
    pub header_serial: Option<u32>,
    /// Exactly these flags.
    pub flags: Option<u8>,
    /// More flag bits to send.
    pub bits: u8,
    /// Payload.
    pub text: Option<Vec<u8>>,
    /// Bytes of payload.
    pub len: Option<usize>,
    /// An ABORT's code.
    pub code: Option<i32>,
    /// An ACK's firstPacket.
    pub first: Option<u32>,
    /// An ACK's previousPacket.
    pub previous: Option<u32>,
    /// An ACK's reason.
    pub reason: Option<u8>,
    /// An ACK's table, one byte a packet.
    pub sacks: Option<Vec<u8>>,
    /// The window of an ACK's trailer, in packets.
    pub window: Option<u32>,
    /// Words of an ACK's trailer to send: 0, 2, 3 or 4.
    pub words: Option<usize>,
    /// Packets a datagram, of an ACK's trailer.
    pub jumbo: Option<u32>,
    /// Sizes of an ACK's trailer, in bytes.
    pub mtu: Option<u32>,
    /// Bytes to send after the trailer, or after the code.
    pub excess: usize,
    /// Whether the padding to send is not zero.
    pub sets_padding: bool,
    /// Channel, 0 to 3.
    pub channel: u8,
    /// Security class.
    pub security_index: Option<u8>,
    /// Service.
    pub service: Option<u16>,
    /// userStatus.
    pub user_status: Option<u8>,
    /// Checksum of the security class.
    pub cksum: Option<u16>,
    /// Epoch.
    pub epoch: Option<u32>,
    /// Connection id.
    pub cid: Option<u32>,
    /// The sub-packets of a jumbogram after the first.
    pub more: Vec<Line>,
}

const FLAG_LETTERS: [(char, Flags); 5] = [
    ('C', Flags::CLIENT_INITIATED),
    ('R', Flags::REQUEST_ACK),
    ('L', Flags::LAST_PACKET),
    ('M', Flags::MORE_PACKETS),
    ('J', Flags::JUMBO_PACKET),
];

const TYPES: [(u8, &str); 9] = [
    (1, "D"),
    (2, "A"),
    (3, "BUSY"),
    (4, "ABORT"),
    (5, "ACKALL"),
    (6, "CHALLENGE"),
    (7, "RESPONSE"),
    (8, "DEBUG"),
    (13, "VERSION"),
];

const REASONS: [&str; 10] = [
    "0",
    "REQUESTED",
    "DUPLICATE",
    "OUT_OF_SEQUENCE",
    "EXCEEDS_WINDOW",
    "NOSPACE",
    "PING",
    "PING_RESPONSE",
    "DELAY",
    "IDLE",
];

/// Reads a line.
///
/// # Panics
/// If it cannot be read: that is a mistake in the test.
#[track_caller]
pub fn parse(text: &str) -> Line {
    match text.parse() {
        Ok(line) => line,
        Err(mistake) => panic!("{mistake} in: {text}"),
    }
}

/// What in a line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such word: {0}")]
pub struct Mistake(pub String);

impl std::str::FromStr for Line {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Line, Mistake> {
        let mut parts = text.split(" + ");
        let mut line = read_packet(parts.next().unwrap_or_default(), true)?;
        line.more = parts.map(|part| read_packet(part, false)).collect::<Result<_, _>>()?;
        Ok(line)
    }
}

fn read_packet(text: &str, has_type: bool) -> Result<Line, Mistake> {
    let mut line = Line { packet_type: 1, ..Line::default() };
    let (words, quoted) = match text.split_once('"') {
        Some((words, rest)) => {
            (words, Some(rest.strip_suffix('"').ok_or_else(|| Mistake(text.to_owned()))?))
        }
        None => (text, None),
    };
    line.text = quoted.map(|quoted| quoted.as_bytes().to_vec());
    let mut words = words.split_whitespace();
    if has_type {
        let name = words.next().unwrap_or_default();
        let known = TYPES.iter().find(|(_, known)| *known == name).map(|(byte, _)| *byte);
        let byte = known.or_else(|| u8::try_from(number(name, "TYPE")?).ok());
        line.packet_type = byte.ok_or_else(|| Mistake(name.to_owned()))?;
    }
    for word in words {
        read_word(&mut line, word).ok_or_else(|| Mistake(word.to_owned()))?;
    }
    Ok(line)
}

fn read_word(line: &mut Line, word: &str) -> Option<()> {
    if let Some(letters) = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) {
        line.flags = Some(letters.chars().try_fold(0, |flags, letter| {
            let known = FLAG_LETTERS.iter().find(|(known, _)| *known == letter)?;
            Some(flags | known.1.0)
        })?);
    } else if let Some(entries) = word.strip_prefix("a[").and_then(|word| word.strip_suffix(']')) {
        let mut sacks = Vec::new();
        for entry in entries.split(',').filter(|entry| !entry.is_empty()) {
            let (value, times) = entry.split_once('x').unwrap_or((entry, "1"));
            sacks.extend(std::iter::repeat_n(value.parse::<u8>().ok()?, times.parse().ok()?));
        }
        line.sacks = Some(sacks);
    } else if let Some(name) = word.strip_prefix('=') {
        line.reason = Some(REASONS.iter().position(|known| *known == name)? as u8);
    } else if word == "pad" {
        line.sets_padding = true;
    } else if let Ok(code) = word.parse() {
        line.code = Some(code);
    } else if let Some(value) = hex(word, "epoch") {
        line.epoch = Some(value);
    } else if let Some(value) = hex(word, "cid") {
        line.cid = Some(value);
    } else if let Some(value) = number(word, "ch") {
        line.channel = value as u8;
    } else if let Some(value) = hex(word, "ck") {
        line.cksum = Some(value as u16);
    } else if let Some(value) = number(word, "idx") {
        line.security_index = Some(value as u8);
    } else if let Some(value) = number(word, "svc") {
        line.service = Some(value as u16);
    } else if let Some(value) = number(word, "ust") {
        line.user_status = Some(value as u8);
    } else if let Some(value) = hex(word, "bits") {
        line.bits = value as u8;
    } else if let Some(value) = number(word, "len") {
        line.len = Some(value as usize);
    } else if let Some(value) = number(word, "words") {
        line.words = Some(value as usize);
    } else if let Some(value) = number(word, "jumbo") {
        line.jumbo = Some(value);
    } else if let Some(value) = number(word, "mtu") {
        line.mtu = Some(value);
    } else if let Some(value) = number(word, "excess") {
        line.excess = value as usize;
    } else if let Some(value) = number(word, "n") {
        line.number = Some(value);
    } else if let Some(value) = number(word, "q") {
        line.seq = Some(value);
    } else if let Some(value) = number(word, "s") {
        line.serial = Some(value);
    } else if let Some(value) = number(word, "h") {
        line.header_serial = Some(value);
    } else if let Some(value) = number(word, "f") {
        line.first = Some(value);
    } else if let Some(value) = number(word, "p") {
        line.previous = Some(value);
    } else if let Some(value) = number(word, "r") {
        line.reason = Some(value as u8);
    } else if let Some(value) = number(word, "w") {
        line.window = Some(value);
    } else {
        line.text = Some(read_hex(word.strip_prefix('x')?)?);
    }
    Some(())
}

fn number(word: &str, prefix: &str) -> Option<u32> {
    word.strip_prefix(prefix)?.parse().ok()
}

fn hex(word: &str, prefix: &str) -> Option<u32> {
    u32::from_str_radix(word.strip_prefix(prefix)?, 16).ok()
}

/// Bytes of hex digits; spaces are ignored.
///
/// # Panics
/// If they are none.
#[track_caller]
pub fn bytes_of_hex(digits: &str) -> Vec<u8> {
    read_hex(digits).unwrap_or_else(|| panic!("no hex digits: {digits}"))
}

fn read_hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = digits.chars().filter(|digit| !digit.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok();
    digits.chunks(2).map(byte).collect()
}

/// What a packet has where its line is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Epoch.
    pub epoch: u32,
    /// Connection id.
    pub cid: u32,
    /// Serial.
    pub serial: u32,
    /// Flags.
    pub flags: u8,
}

impl Default for Defaults {
    /// Connection K of rx-scenarios.md, the first serial, no flags.
    fn default() -> Self {
        Defaults { epoch: 0x8f3a_21c4, cid: 0x5d0e_9a34, serial: 1, flags: 0 }
    }
}

impl Line {
    /// Whether the packet would carry CLIENT_INITIATED.
    pub fn is_from_client(&self, default: bool) -> bool {
        self.flags.map_or(default, |flags| Flags(flags).has(Flags::CLIENT_INITIATED))
    }

    /// The datagram.
    pub fn encode(&self, defaults: &Defaults) -> Vec<u8> {
        let is_ack = self.packet_type == 2;
        let data_serial = if is_ack { None } else { self.serial };
        let connection = Cid(self.cid.unwrap_or(defaults.cid));
        let channel = ChannelIndex::new(self.channel).expect("a channel");
        let connection_level = matches!(self.packet_type, 6 | 7);
        let header = Header {
            epoch: Epoch(self.epoch.unwrap_or(defaults.epoch)),
            cid: if self.channel == 0 { connection } else { connection.with_channel(channel) },
            call_number: CallNumber(self.number.unwrap_or(u32::from(!connection_level))),
            seq: Seq(self.seq.unwrap_or(0)),
            serial: Serial(self.header_serial.or(data_serial).unwrap_or(defaults.serial)),
            packet_type: PacketType::from_byte(self.packet_type),
            flags: Flags(self.flags.unwrap_or(defaults.flags) | self.bits),
            user_status: self.user_status.unwrap_or(0),
            security_index: SecurityIndex(self.security_index.unwrap_or(0)),
            cksum: self.cksum.unwrap_or(0),
            service_id: ServiceId(self.service.unwrap_or(1)),
        };
        let mut datagram = header.encode().to_vec();
        match self.packet_type {
            2 if self.text.is_none() => self.encode_ack(&mut datagram),
            4 if self.text.is_none() => {
                datagram.extend(encode_abort(AbortCode(self.code.unwrap_or(0))));
                datagram.extend(vec![0xee; self.excess]);
            }
            _ => datagram.extend(self.payload(self.seq.unwrap_or(0))),
        }
        for (index, sub) in self.more.iter().enumerate() {
            let cksum = sub.cksum.unwrap_or(0).to_be_bytes();
            let short = [sub.flags.unwrap_or(0), 0, cksum[0], cksum[1]];
            let _: [u8; JUMBO_HEADER_LEN] = short;
            datagram.extend(short);
            datagram.extend(sub.payload(self.seq.unwrap_or(0) + index as u32 + 1));
        }
        datagram
    }

    fn payload(&self, seq: u32) -> Vec<u8> {
        match (&self.text, self.len) {
            (Some(text), _) => text.clone(),
            (None, len) => vec![seq as u8; len.unwrap_or(0)],
        }
    }

    fn encode_ack(&self, datagram: &mut Vec<u8>) {
        let (mtu, rwind) = (self.mtu.unwrap_or(1444), self.window.unwrap_or(32));
        let trailer = match self.words.unwrap_or(4) {
            0 => Trailer::None,
            2 => Trailer::Sizes { max_mtu: mtu, if_mtu: mtu },
            3 => Trailer::Window { max_mtu: mtu, if_mtu: mtu, rwind },
            _ => {
                let jumbo_max = self.jumbo.unwrap_or(1);
                Trailer::Full(FullTrailer { max_mtu: mtu, if_mtu: mtu, rwind, jumbo_max })
            }
        };
        let first = self.first.unwrap_or(1);
        let sacks = self.sacks.clone().unwrap_or_default();
        let excess = vec![0; self.excess];
        let ack = Ack {
            buffer_space: 0,
            max_skew: 0,
            first_packet: Seq(first),
            previous_packet: Seq(self.previous.unwrap_or(first.saturating_sub(1))),
            serial: Serial(self.serial.unwrap_or(0)),
            reason: AckReason::from_byte(self.reason.unwrap_or(9)),
            sacks: &sacks,
            padding: if self.sets_padding { [0xff; 3] } else { [0; 3] },
            trailer,
            excess: &excess,
        };
        ack.encode(datagram);
    }

    /// What of `datagram` is not as the line says; empty if all is.
    pub fn differences(&self, datagram: &[u8]) -> Vec<String> {
        let mut found = Differences::default();
        let packet = match Packet::decode(datagram) {
            Ok(packet) => packet,
            Err(error) => return vec![error.to_string()],
        };
        let header = packet.header;
        found.check("type", Some(self.packet_type), header.packet_type.byte());
        found.check("call", self.number, header.call_number.0);
        found.check("seq", self.seq, header.seq.0);
        found.check("header serial", self.header_serial, header.serial.0);
        if self.packet_type != 2 {
            found.check("serial", self.serial, header.serial.0);
        }
        let decoration = if self.packet_type == 2 { Flags::SLOW_START_OK } else { Flags::NONE };
        let flags = header.flags.without(decoration).0;
        found.check("flags", self.flags.map(shown_flags), shown_flags(flags));
        found.check("channel", Some(self.channel), header.cid.channel().index() as u8);
        found.check("epoch", self.epoch.map(Epoch), header.epoch);
        found.check("cid", self.cid.map(Cid), header.cid.connection());
        found.check("securityIndex", self.security_index, header.security_index.0);
        found.check("service", self.service, header.service_id.0);
        found.check("userStatus", self.user_status, header.user_status);
        found.check("checksum", self.cksum, header.cksum);
        match packet.payload {
            Payload::Ack(ack) => {
                found.check("firstPacket", self.first, ack.first_packet.0);
                found.check("previousPacket", self.previous, ack.previous_packet.0);
                found.check("serial field", self.serial, ack.serial.0);
                let reason = ack.reason.byte();
                found.check("reason", self.reason.map(shown_reason), shown_reason(reason));
                found.check("acks", self.sacks.as_deref(), ack.sacks);
                if let Trailer::Full(full) = ack.trailer {
                    found.check("window", self.window, full.rwind);
                    found.check("jumbo", self.jumbo, full.jumbo_max);
                    found.check("mtu", self.mtu, full.max_mtu);
                }
            }
            Payload::Abort { code, .. } => found.check("code", self.code, code.0),
            _ => {
                let payload = &datagram[HEADER_LEN..];
                let text = self.text.as_deref().map(String::from_utf8_lossy);
                found.check("payload", text, String::from_utf8_lossy(payload));
                found.check("length", self.len, payload.len());
            }
        }
        found.0
    }
}

#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn check<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, want: Option<T>, got: T) {
        if let Some(want) = want
            && want != got
        {
            self.0.push(format!("{name}: expected {want:?}, got {got:?}"));
        }
    }
}

fn shown_flags(flags: u8) -> String {
    let mut shown = String::from("[");
    let mut rest = flags;
    for (letter, flag) in FLAG_LETTERS {
        if flags & flag.0 != 0 {
            shown.push(letter);
            rest &= !flag.0;
        }
    }
    shown.push(']');
    if rest != 0 {
        shown.push_str(&format!(" bits{rest:02x}"));
    }
    shown
}

fn shown_reason(reason: u8) -> String {
    REASONS.get(usize::from(reason)).map_or(format!("r{reason}"), |name| format!("={name}"))
}

/// A datagram in the notation.
pub fn show(datagram: &[u8]) -> String {
    let Ok(packet) = Packet::decode(datagram) else {
        return format!("({} bytes that are no packet) {datagram:02x?}", datagram.len());
    };
    let header = packet.header;
    let byte = header.packet_type.byte();
    let known = TYPES.iter().find(|(known, _)| *known == byte);
    let name = known.map_or_else(|| format!("TYPE{byte}"), |(_, name)| (*name).to_owned());
    let decoration = if name == "A" { Flags::SLOW_START_OK } else { Flags::NONE };
    let mut shown = format!(
        "{name} n{} q{} h{} {}",
        header.call_number.0,
        header.seq.0,
        header.serial.0,
        shown_flags(header.flags.without(decoration).0)
    );
    let mut add = |text: String| {
        shown.push(' ');
        shown.push_str(&text);
    };
    if header.cid.channel().index() != 0 {
        add(format!("ch{}", header.cid.channel().index()));
    }
    if header.security_index != SecurityIndex::NULL {
        add(format!("idx{}", header.security_index.0));
    }
    if header.service_id != ServiceId(1) {
        add(format!("svc{}", header.service_id.0));
    }
    match packet.payload {
        Payload::Ack(ack) => {
            add(format!("f{} p{}", ack.first_packet, ack.previous_packet));
            add(format!("s{} {}", ack.serial, shown_reason(ack.reason.byte())));
            let entries: Vec<String> = ack.sacks.iter().map(u8::to_string).collect();
            add(format!("a[{}]", entries.join(",")));
            match ack.trailer {
                Trailer::Full(full) => add(format!("w{}", full.rwind)),
                other => add(format!("{other:?}")),
            }
        }
        Payload::Abort { code, .. } => add(code.to_string()),
        _ => {
            let payload = &datagram[HEADER_LEN..];
            match std::str::from_utf8(payload) {
                Ok(text) if payload.len() < 40 && !text.chars().any(char::is_control) => {
                    add(format!("{text:?}"));
                }
                _ => add(format!("len{}", payload.len())),
            }
        }
    }
    shown
}
