//! Leave for a client's channels to begin calls by themselves.
//!
//! While nothing disturbs a connection, a call goes from its user straight to a channel, and the connection hears
//! neither of its begin nor of its good end. So what it knows of its channels may be old. Before it decides anything by
//! that (which channel a call gets that waits, how a CHALLENGE is answered, whether nothing happens any more) it takes the
//! leave back: each channel says how it stands, and tells all that happens from then on.

use std::time::Instant;

use super::{
    CallNumber, ChannelIndex, Connection, ConnectionOutput, ConnectionToChannel, Phase, Role,
    Upgrade, bit,
};

/// Which channels have leave, and what waits until they have said how they stand.
#[derive(Debug, Default)]
pub(super) struct Leave {
    /// Whether it may be given at all.
    is_allowed: bool,
    is_given: bool,
    /// Channels that have not said yet how they stand, a bit each.
    asked: u8,
    /// Channels with a call that was sent to another one, which may be free: a bit each.
    pub misplaced: u8,
    /// The last CHALLENGE that came meanwhile.
    challenge: Option<Box<[u8]>>,
    /// Whether it is to be found out that nothing happens any more.
    is_idle_due: bool,
}

impl<W> Connection<W> {
    /// From now on a client's channels may be given leave to begin calls by themselves. Whether they have it from the
    /// start: then they have to be told so as they are made.
    pub fn allow_leave(&mut self) -> bool {
        self.leave.is_allowed = self.role == Role::Client;
        self.leave.is_given = self.leave.is_allowed && self.upgrade == Upgrade::No;
        self.leave.is_given
    }

    /// Whether the channels are known as they are; if not, they are asked, and what was to be done is done when they
    /// have answered.
    pub(super) fn knows_channels(&mut self, out: &mut ConnectionOutput<W>) -> bool {
        if std::mem::take(&mut self.leave.is_given) {
            for index in ChannelIndex::ALL {
                self.leave.asked |= bit(index);
                out.channels.push((index, ConnectionToChannel::LeaveOver));
            }
        }
        self.leave.asked == 0
    }

    /// A CHALLENGE is answered when the channels are known.
    pub(super) fn keep_challenge(&mut self, payload: &[u8]) {
        self.leave.challenge = Some(payload.into());
    }

    /// Whether the connection is idle is found out when the channels are known.
    pub(super) fn keep_idle_due(&mut self) {
        self.leave.is_idle_due = true;
    }

    /// A channel stands so. `idle_since` is `None` while it has a call.
    pub(super) fn hear_stand(
        &mut self,
        now: Instant,
        index: ChannelIndex,
        last: CallNumber,
        idle_since: Option<Instant>,
        out: &mut ConnectionOutput<W>,
    ) {
        if self.leave.asked & bit(index) == 0 {
            return;
        }
        self.leave.asked &= !bit(index);
        let slot = &mut self.slots[index.index()];
        slot.busy = idle_since.is_none();
        slot.last = last;
        self.idle_since = idle_since.map_or(self.idle_since, |since| since.max(self.idle_since));
        self.go_on_with_known_channels(now, out);
    }

    /// A channel was lost: users do not know the address of the one in its place, so none of the connection's calls goes
    /// straight to a channel any more.
    pub(super) fn end_leave_for_good(&mut self, index: ChannelIndex) {
        self.leave.is_allowed = false;
        self.leave.asked &= !bit(index);
    }

    /// What has waited for the channels to be known.
    pub(super) fn go_on_with_known_channels(
        &mut self,
        now: Instant,
        out: &mut ConnectionOutput<W>,
    ) {
        if self.leave.asked != 0 {
            return;
        }
        if let Some(challenge) = self.leave.challenge.take() {
            self.handle_challenge(now, &challenge, out);
        }
        if std::mem::take(&mut self.leave.is_idle_due) && matches!(self.phase, Phase::Open) {
            self.expire_idle(now, out);
        }
        self.start_waiting(now, out);
        self.give_leave(out);
    }

    /// Gives leave if nothing stands against it: then a call that is sent to a channel finds it free.
    pub(super) fn give_leave(&mut self, out: &mut ConnectionOutput<W>) {
        let leave = &self.leave;
        if !leave.is_allowed
            || leave.is_given
            || leave.asked != 0
            || leave.misplaced != 0
            || !matches!(self.phase, Phase::Open)
            || self.upgrade != Upgrade::No
            || !self.waiting.is_empty()
            || self.slots.iter().any(|slot| slot.avoid.is_some())
            || self.is_used_up()
        {
            return;
        }
        self.leave.is_given = true;
        out.channels.extend(ChannelIndex::ALL.map(|index| (index, ConnectionToChannel::Leave)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::SerialCounter;
    use crate::proto::channel::{ChannelMemory, ChannelToConnection};
    use crate::proto::config::EndpointConfig;
    use crate::proto::connection::{ConnectionSetup, Handshake};
    use crate::security::{ClientHandshake, ConnectionIds, Entropy, EntropySource};
    use crate::wire::{AbortCode, Cid, Epoch, SecurityIndex, ServiceId};

    /// Answers with the call numbers that it is given.
    #[derive(Debug)]
    struct Numbers;

    impl ClientHandshake for Numbers {
        fn respond(
            &mut self,
            _: &[u8],
            call_numbers: [CallNumber; ChannelIndex::COUNT],
            _: &Entropy,
        ) -> Result<Vec<u8>, AbortCode> {
            Ok(call_numbers.map(|number| number.0 as u8).to_vec())
        }
    }

    type Output = ConnectionOutput<&'static str>;

    struct Client {
        core: Connection<&'static str>,
        out: Output,
        now: Instant,
    }

    impl Client {
        fn new() -> Client {
            let ids = ConnectionIds {
                epoch: Epoch(0x8000_0001),
                cid: Cid(4),
                service_id: ServiceId(1),
                security_index: SecurityIndex(2),
            };
            let setup = ConnectionSetup {
                role: Role::Client,
                ids,
                config: EndpointConfig::default().client.into(),
                serials: SerialCounter::new(),
                handshake: Handshake::Client(Box::new(Numbers)),
                asks_upgrade: false,
                entropy: EntropySource::new(|| [0; 32]),
            };
            let now = Instant::now();
            let mut core = Connection::new(setup, now);
            assert!(core.allow_leave());
            Client { core, out: Output::default(), now }
        }

        /// What the channels are told, in order.
        fn told(&mut self) -> String {
            let told = self.out.channels.drain(..).map(|(index, word)| match word {
                ConnectionToChannel::Leave => format!("+{index}"),
                ConnectionToChannel::LeaveOver => format!("-{index}"),
                other => format!("{other:?}"),
            });
            told.collect::<Vec<_>>().join(" ")
        }

        fn says(&mut self, index: usize, word: ChannelToConnection) {
            self.core.handle_channel(self.now, ChannelIndex::ALL[index], word, &mut self.out);
        }

        fn stands(&mut self, index: usize, last: u32, idle_since: Option<Instant>) {
            self.says(index, ChannelToConnection::Stands { last: CallNumber(last), idle_since });
        }

        fn over(&mut self, index: usize, last: u32, avoid: bool) {
            self.says(index, ChannelToConnection::CallOver { last: CallNumber(last), avoid });
        }

        fn start(&mut self, work: &'static str, prefers: usize) {
            let prefers = Some(ChannelIndex::ALL[prefers]);
            self.core.handle_start_near(self.now, work, None, prefers, &mut self.out);
        }

        fn starts(&mut self) -> Vec<(usize, &'static str)> {
            self.out.starts.drain(..).map(|(index, work, _)| (index.index(), work)).collect()
        }
    }

    const ALL_BACK: &str = "-0 -1 -2 -3";
    const ALL_LEAVE: &str = "+0 +1 +2 +3";

    #[test]
    fn a_challenge_is_answered_with_the_numbers_that_the_channels_have_now() {
        let mut client = Client::new();
        client.core.handle_challenge(client.now, b"?", &mut client.out);
        assert_eq!(client.told(), ALL_BACK);
        client.core.handle_challenge(client.now, b"!", &mut client.out);
        assert_eq!(client.told(), "", "they are asked once");
        client.stands(0, 7, None);
        client.stands(1, 3, Some(client.now));
        client.stands(1, 9, Some(client.now));
        client.stands(2, 0, Some(client.now));
        assert!(client.out.datagrams.is_empty());
        client.stands(3, 0, None);
        let sent: Vec<_> = client.out.datagrams.iter().map(|it| it[28..].to_vec()).collect();
        assert_eq!(sent, [[8, 4, 0, 1]]);
        assert_eq!(client.told(), ALL_LEAVE);
    }

    #[test]
    fn a_call_that_waits_gets_a_free_channel_when_all_are_known_and_then_there_is_leave_again() {
        let mut client = Client::new();
        client.start("a", 1);
        assert_eq!((client.told().as_str(), client.starts()), (ALL_BACK, vec![]));
        for (index, idle_since) in
            [None, Some(client.now), None, Some(client.now)].into_iter().enumerate()
        {
            client.stands(index, 1, idle_since);
        }
        assert_eq!(client.starts(), [(1, "a")], "its own");
        assert_eq!(client.told(), ALL_LEAVE, "each call has its own channel");
        // Its own is avoided, so it gets another, whose users find it taken.
        client.over(1, 2, true);
        client.start("b", 1);
        assert_eq!(client.told(), ALL_BACK);
        for index in 0..4 {
            client.stands(index, 2, Some(client.now));
        }
        assert_eq!(client.starts(), [(0, "b")]);
        client.start("c", 0);
        assert_eq!(client.starts(), [(2, "c")]);
        client.over(0, 3, false);
        client.over(2, 3, false);
        assert_eq!(client.told(), "", "one channel is still avoided");
        for (index, work) in ["d", "e", "f", "g"].into_iter().enumerate() {
            client.start(work, index);
        }
        assert_eq!(client.starts(), [(0, "d"), (2, "e"), (3, "f"), (1, "g")]);
        for index in [0, 2, 3] {
            client.over(index, 4, false);
            assert_eq!(client.told(), "");
        }
        client.over(1, 4, false);
        assert_eq!(client.told(), ALL_LEAVE);
    }

    #[test]
    fn a_connection_whose_channel_has_a_call_is_not_idle() {
        let mut client = Client::new();
        let began = client.now;
        let mut last_over = None;
        for is_idle in [false, false, true] {
            client.now = client.core.next_deadline().expect("it ends some time");
            client.core.handle_deadline(client.now, &mut client.out);
            assert_eq!(client.told(), ALL_BACK);
            for index in 0..3 {
                client.stands(index, 0, Some(began));
            }
            assert_eq!(client.core.next_deadline(), None, "not before all have answered");
            client.stands(3, 1, last_over);
            assert_eq!(client.out.closes, is_idle);
            assert_eq!(client.told() == ALL_LEAVE, !is_idle);
            // Over a second after it was asked.
            last_over.get_or_insert(client.now + Duration::from_secs(1));
        }
    }

    #[test]
    fn a_channel_that_is_lost_is_not_waited_for_and_none_has_leave_any_more() {
        let mut client = Client::new();
        client.start("a", 0);
        client.told();
        for index in 1..4 {
            client.stands(index, 0, Some(client.now));
        }
        assert_eq!(client.starts(), []);
        let (index, memory) = (ChannelIndex::ALL[0], ChannelMemory::default());
        client.core.handle_channel_replaced(client.now, index, memory, &mut client.out);
        assert_eq!(client.starts(), [(1, "a")], "not the one where a call was lost");
        client.over(1, 1, false);
        client.start("b", 0);
        client.over(1, 2, false);
        assert_eq!(client.told(), "");
    }
}
