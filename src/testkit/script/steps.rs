//! The text of a script, read into steps.

use std::time::Duration;

use crate::testkit::notation::Line;

/// How long after the step before it something may come that is to come at once.
pub(super) const AT_ONCE: Duration = Duration::from_millis(50);

/// One line of a script.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// Its number, from 1.
    pub line: usize,
    /// As it was written.
    pub text: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Send(Line),
    Expect(Span, Line),
    Ignore(Line),
    Quiet(Duration),
    Wait(Duration),
    Forget,
    /// The application at the other end does something.
    Act(Act),
    /// The application at the other end is told something.
    Told(Span, Told),
}

/// When something is to come, counted from the end of the step before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub not_before: Duration,
    pub within: Duration,
}

/// What a script has the application at the other end do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// A client calls with this request.
    Call(Vec<u8>),
    /// A service replies to its oldest call.
    Reply(Vec<u8>),
    /// A service aborts its oldest call.
    Abort(i32),
}

/// What the application at the other end is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A client's call ended well, with this reply.
    Good(Vec<u8>),
    /// A client's call failed, or a service's.
    Failed,
    /// A service has read this request.
    Asked(Vec<u8>),
    /// A service's reply is acknowledged, wholly or not.
    Acknowledged(bool),
}

/// Reads a script; the error names the line.
pub(super) fn read(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let text = text.split("//").next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let line = index + 1;
        let what = step(text).map_err(|why| format!("line {line}: {text}\n  {why}"))?;
        steps.push(Step { line, text: text.to_owned(), what });
    }
    Ok(steps)
}

fn step(text: &str) -> Result<What, String> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let packet = |text: &str| text.parse::<Line>().map_err(|mistake| mistake.to_string());
    Ok(match word {
        "send" => What::Send(packet(rest)?),
        "expect" => {
            let (span, rest) = span(rest)?;
            What::Expect(span, packet(rest)?)
        }
        "ignore" => What::Ignore(packet(rest)?),
        "quiet" => What::Quiet(whole_duration(rest)?),
        "wait" => What::Wait(whole_duration(rest)?),
        "forget" if rest.is_empty() => What::Forget,
        "call" => What::Act(Act::Call(bytes(rest)?)),
        "reply" => What::Act(Act::Reply(bytes(rest)?)),
        "abort" => What::Act(Act::Abort(rest.parse().map_err(|_| "a code is a number")?)),
        "app" => {
            let (span, rest) = span(rest)?;
            let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            What::Told(
                span,
                match word {
                    "good" => Told::Good(bytes(rest.trim())?),
                    "asked" => Told::Asked(bytes(rest.trim())?),
                    "failed" => Told::Failed,
                    "acknowledged" => Told::Acknowledged(true),
                    "unacknowledged" => Told::Acknowledged(false),
                    _ => {
                        return Err(
                            "good, asked, failed, acknowledged or unacknowledged".to_owned()
                        );
                    }
                },
            )
        }
        _ => {
            return Err(
                "send, expect, ignore, quiet, wait, forget, call, reply, abort or app".into()
            );
        }
    })
}

/// `"text"`, or `len3000` for so many bytes 0x55.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let counted = || text.strip_prefix("len")?.parse().ok().map(|len| vec![0x55; len]);
    let bytes = quoted.map(|text| text.as_bytes().to_vec()).or_else(counted);
    bytes.ok_or_else(|| "bytes are \"text\" or len10".to_owned())
}

/// `after 1 s` = then, and at once; `within 400 ms`; or both.
fn span(text: &str) -> Result<(Span, &str), String> {
    let (not_before, text) = match text.strip_prefix("after ") {
        Some(rest) => duration(rest)?,
        None => (Duration::ZERO, text),
    };
    let (within, text) = match text.strip_prefix("within ") {
        Some(rest) => duration(rest)?,
        None => (not_before + AT_ONCE, text),
    };
    Ok((Span { not_before, within }, text))
}

fn whole_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        (time, "") => Ok(time),
        (_, rest) => Err(format!("too much: {rest}")),
    }
}

fn duration(text: &str) -> Result<(Duration, &str), String> {
    let wrong = || "a time is a number and ms or s".to_owned();
    let (number, rest) = text.trim_start().split_once(' ').ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (unit, rest) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
    match unit {
        "ms" => Ok((Duration::from_millis(number), rest.trim_start())),
        "s" => Ok((Duration::from_secs(number), rest.trim_start())),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_meant() {
        let span = |text| match read(text).unwrap().remove(0).what {
            What::Expect(span, _) => (span.not_before.as_millis(), span.within.as_millis()),
            other => panic!("{other:?}"),
        };
        assert_eq!(span("expect D n1"), (0, 50));
        assert_eq!(span("expect within 2 s D n1"), (0, 2000));
        assert_eq!(span("expect after 100 ms D n1"), (100, 150));
        assert_eq!(span("expect after 100 ms within 1 s D n1"), (100, 1000));
    }

    #[test]
    fn a_mistake_names_its_line() {
        let mistake = |text| read(text).unwrap_err();
        assert!(mistake("wait 1 s\n\n expct D n1").starts_with("line 3: expct D n1\n"));
        assert!(mistake("send D zz").contains("no such word: zz"));
        assert!(mistake("expect within 5 D n1").contains("ms or s"));
        assert!(mistake("wait 5 s more").contains("too much: more"));
        assert!(mistake("call hello").contains("\"text\""));
        assert!(mistake("send D n1 \"x").contains("no such word"));
    }
}
