//! How large the searched world is, and what is broken in it on purpose.

/// One call: who sends how many packets, and whether their writers dawdle.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Packets of the request, 1 or 2.
    pub request: u8,
    /// Packets of the reply, 1 or 2.
    pub reply: u8,
    /// Whether each packet is written by itself, whenever its writer likes; else all at once.
    pub is_piecewise: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The calls, one after the other, three at the most.
    pub calls: Vec<Shape>,
    /// Receive windows, and send windows until the first ACK, in packets.
    pub window: u32,
    /// Most packets in the network at one time.
    pub in_flight: usize,
    /// Whether the network holds back and reorders.
    pub reorders: bool,
    /// Whether two datagrams may be received together, as one run.
    pub runs: bool,
    /// Packets that the network may lose.
    pub losses: u8,
    /// Packets that it may deliver twice.
    pub repeats: u8,
    /// How often retransmission timers may run out.
    pub resends: u8,
    /// PINGs that may be sent after silence.
    pub pings: u8,
    /// Calls that an application may abort, either side.
    pub aborts: u8,
    /// Calls that may die of silence, either side.
    pub deaths: u8,
    /// Whether the delayed ACK may be due and its timer not be served yet.
    pub late_timers: bool,
    /// Whether services reply before they have read the request to its end.
    pub eager: bool,
    /// Whether services wait for the proof of the client's address.
    pub reach: bool,
    /// Whether a server takes a channel over from a call that still runs.
    pub takeover: bool,
    /// What is broken.
    pub flaws: &'static [Flaw],
}

/// A way in which a host is made wrong, outside of its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Server: DATA of the next call does not end the present one: it is answered with BUSY.
    NoImplicitEnd,
    /// Server: call numbers are not compared: packets are taken for the present call, or begin one.
    NoNumberCheck,
    /// Server: ACKs wait in a queue of their own: the race of 2014.
    AckQueue,
    /// The client begins a call only when the final ACK of the one before has left, as it was in 2014.
    ClientAcksFirst,
    /// Server: a request is put together in the order in which its packets come.
    NoSequenceCheck,
    /// Server: an idle channel numbers a call that comes by itself.
    CountsCalls,
    /// Server: what an ACK says has come counts as if all before it had.
    SoftIsHard,
    /// Server: any ACK opens the window by eight packets.
    WideWindow,
    /// Server: an ACK of an earlier call counts for the present one.
    OldAcksCount,
    /// Server: a packet of an earlier call is answered with an ABORT of the present one.
    AbortsForOld,
    /// Server: the serial of DATA is its seq.
    SerialIsSeq,
    /// Server: an ACK of what had come already begins with the first packet.
    DuplicatesReset,
    /// Server: each packet of a reply says that it is the last.
    AlwaysLast,
    /// Server: the service hears of its next call before the end of the one before.
    EndsToldLate,
    /// Server: nobody looks after what is in flight.
    NoRetransmission,
    /// Server: the retransmission timer sends nothing.
    EmptyRetransmission,
    /// Client: ACKs wait in a queue of their own before they leave.
    AcksLeaveLate,
    /// Client: nothing is acknowledged of a call that is over.
    NoFinalAck,
    /// Client: the end of an ACK is not read.
    CutAcks,
}

impl Bounds {
    /// `calls` on a network that holds back and reorders, and nothing else that may go wrong.
    pub fn new(calls: &[Shape]) -> Bounds {
        Bounds {
            calls: calls.to_vec(),
            window: 2,
            in_flight: 4,
            reorders: true,
            runs: false,
            losses: 0,
            repeats: 0,
            resends: 0,
            pings: 0,
            aborts: 0,
            deaths: 0,
            late_timers: false,
            eager: false,
            reach: false,
            takeover: true,
            flaws: &[],
        }
    }

    /// Whether this is broken.
    pub fn has(&self, flaw: Flaw) -> bool {
        self.flaws.contains(&flaw)
    }

    /// Bounds as words: `calls=11+21p` (packets of request and reply; `p` = piecewise), and each other field
    /// by its name, as in `losses=1 takeover=0`.
    ///
    /// # Errors
    /// The word that says nothing.
    pub fn parse(text: &str) -> Result<Bounds, String> {
        let mut bounds = Bounds::new(&[]);
        for word in text.split_whitespace() {
            bounds.set(word).ok_or_else(|| word.to_owned())?;
        }
        if bounds.calls.is_empty() { Err("no calls".to_owned()) } else { Ok(bounds) }
    }

    fn set(&mut self, word: &str) -> Option<()> {
        let (name, value) = word.split_once('=')?;
        if name == "calls" {
            self.calls = value.split('+').map(Shape::parse).collect::<Option<_>>()?;
            return Some(());
        }
        let value: u8 = value.parse().ok()?;
        match name {
            "window" => self.window = value.into(),
            "in_flight" => self.in_flight = value.into(),
            "reorders" => self.reorders = value > 0,
            "runs" => self.runs = value > 0,
            "eager" => self.eager = value > 0,
            "reach" => self.reach = value > 0,
            "losses" => self.losses = value,
            "repeats" => self.repeats = value,
            "resends" => self.resends = value,
            "pings" => self.pings = value,
            "aborts" => self.aborts = value,
            "deaths" => self.deaths = value,
            "late_timers" => self.late_timers = value > 0,
            "takeover" => self.takeover = value > 0,
            _ => return None,
        }
        Some(())
    }
}

impl Shape {
    fn parse(text: &str) -> Option<Shape> {
        let (packets, is_piecewise) = match text.strip_suffix('p') {
            Some(packets) => (packets, true),
            None => (text, false),
        };
        let [request @ b'1'..=b'2', reply @ b'1'..=b'2'] = packets.as_bytes() else { return None };
        Some(Shape { request: request - b'0', reply: reply - b'0', is_piecewise })
    }
}
