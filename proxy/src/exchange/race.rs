//! An attempt that another one may overtake: both ask their endpoints, and the relay goes on with the one that the exchange keeps.
//!
//! Until then nothing of an answer is passed on but interim heads, and the other connection is closed before the client gets the
//! first byte. Only requests that are here whole come this way, so that neither leg needs the client.

use super::asking::{Asking, Overdue, RequestShape};
use super::collected::Collected;
use super::downstream::{ClientFault, Downstream};
use super::driver::{Attempted, Driver};
use super::fields::ResponseFields;
use crate::edge::timer::Timer;
use crate::upstream::connection::Connection;
use bytes::BytesMut;
use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tidegate_traffic::retry::{Cause, Failure};
use tidegate_traffic::{Action, Answer, Attempt, Event, Leg, Refusal, RefusalKind, ResponseView};

/// A leg on its way to the head of an answer.
struct Contender<'a> {
    attempt: &'a Attempt,
    stage: Stage<'a>,
}

enum Stage<'a> {
    Connecting(Connecting<'a>),
    Asking(Box<Asking<'a>>),
}

struct Connecting<'a> {
    opening: Pin<Box<dyn Future<Output = Result<Box<Connection>, Failure>> + Send + 'a>>,
    /// The request's head.
    head: BytesMut,
    /// Until there is a connection.
    shape: Option<RequestShape<'a>>,
}

/// What a leg has come to.
enum Said {
    /// A head of so many bytes stands at the front.
    Head(usize),
    Failed(Failure),
    /// It cannot go on, by a fault of ours.
    Refused(Refusal),
}

/// What comes first of all that is waited for.
enum Heard {
    Said(Leg, Said),
    Due,
    Client(ClientFault),
}

impl<'a> Contender<'a> {
    /// Not to be asked again once it has said something but an interim head, which is consumed before.
    fn poll(&mut self, cx: &mut Context<'_>, is_alone: bool) -> Poll<Said> {
        let asking = match &mut self.stage {
            Stage::Connecting(connecting) => match ready!(connecting.poll(cx, self.attempt)) {
                Ok(asking) => {
                    self.stage = Stage::Asking(asking);
                    return self.poll(cx, is_alone);
                }
                Err(said) => return Poll::Ready(said),
            },
            Stage::Asking(asking) => asking,
        };
        match asking.poll_send(cx) {
            Poll::Ready(Err(refusal)) => return Poll::Ready(Said::Refused(refusal)),
            Poll::Ready(Ok(())) => return Poll::Ready(internal("a request that is not whole")),
            Poll::Pending => {}
        }
        match asking.poll_head(cx) {
            Poll::Ready(Ok(length)) => return Poll::Ready(Said::Head(length)),
            Poll::Ready(Err(cause)) => return Poll::Ready(Said::Failed(asking.fail(cause))),
            Poll::Pending => {}
        }
        match ready!(asking.poll_overdue(cx, true)) {
            // No hedge was due in the time of a try, so it was refused: whether there is more time is for the relay to ask.
            Overdue::Try if is_alone => Poll::Pending,
            Overdue::Try | Overdue::Write | Overdue::Read | Overdue::Answer => {
                Poll::Ready(Said::Failed(asking.fail(Cause::TimedOut)))
            }
        }
    }

    /// Waits for the connection where there is none yet.
    async fn connected(self) -> Result<(&'a Attempt, Box<Asking<'a>>), Said> {
        let Self { attempt, stage } = self;
        let asking = match stage {
            Stage::Connecting(mut connecting) => poll_fn(|cx| connecting.poll(cx, attempt)).await?,
            Stage::Asking(asking) => asking,
        };
        Ok((attempt, asking))
    }

    /// Whether the head of an answer is there, and waits for its body.
    fn is_answering(&self) -> bool {
        matches!(&self.stage, Stage::Asking(asking) if asking.arrival().is_some())
    }

    fn collected(&self) -> Option<&Collected> {
        match &self.stage {
            Stage::Connecting(Connecting { shape, .. }) => shape.as_ref()?.collected.as_deref(),
            Stage::Asking(asking) => asking.collected.as_deref(),
        }
    }
}

impl<'a> Connecting<'a> {
    fn poll(&mut self, cx: &mut Context<'_>, attempt: &Attempt) -> Poll<Result<Box<Asking<'a>>, Said>> {
        let mut connection = match ready!(self.opening.as_mut().poll(cx)) {
            Ok(connection) => connection,
            Err(failure) => return Poll::Ready(Err(Said::Failed(failure))),
        };
        connection.write.extend_from_slice(&self.head);
        let Some(shape) = self.shape.take() else { return Poll::Ready(Err(internal("a leg has connected twice"))) };
        Poll::Ready(asking(connection, attempt, shape))
    }
}

fn asking<'a>(
    connection: Box<Connection>,
    attempt: &Attempt,
    shape: RequestShape<'a>,
) -> Result<Box<Asking<'a>>, Said> {
    let mut asking = Box::new(Asking::new(connection, attempt.timeouts, shape));
    asking.begin().map_err(Said::Refused)?;
    Ok(asking)
}

impl<'d, D: Downstream> Driver<'d, D> {
    /// One attempt on one HTTP/1.1 endpoint, that may be joined by another one at `hedge_at`.
    pub(super) async fn race(
        &mut self,
        attempt: &Attempt,
        hedge_at: Instant,
        collected: Option<&mut Collected>,
    ) -> Attempted {
        let mut first = match self.contender(attempt, collected) {
            Ok(contender) => contender,
            Err(said) => return ended(said),
        };
        match self.listen(&mut first, None, Some(hedge_at)).await {
            Heard::Due if first.is_answering() => return self.go_on(first).await,
            Heard::Due => {}
            Heard::Said(_, Said::Head(_)) => return self.go_on(first).await,
            Heard::Said(_, said) => return ended(said),
            Heard::Client(fault) => {
                drop(first);
                return self.client_fault(fault).await;
            }
        }
        let hedge = match self.exchange.step(&self.view.traffic, Event::HedgeDue, Instant::now()) {
            Action::Hedge(hedge) => hedge,
            Action::Keep(_) => return self.go_on(first).await,
            other => return refused(other),
        };
        let before = self.account.attempt_started;
        self.account.begin_attempt(&hedge.endpoint);
        let mut copy = first.collected().map(Collected::copy);
        let mut second = match self.contender(&hedge, copy.as_mut()) {
            Ok(contender) => contender,
            Err(said) => return ended(said),
        };
        let mut answered = None;
        let kept = match self.listen(&mut first, Some(&mut second), None).await {
            Heard::Said(leg, Said::Head(length)) => {
                answered = Some((leg, length));
                self.answered(leg, if leg == Leg::First { &first } else { &second })
            }
            Heard::Said(leg, Said::Failed(failure)) => {
                self.exchange.step(&self.view.traffic, Event::LegFailed(leg, failure), Instant::now())
            }
            Heard::Said(_, said @ Said::Refused(_)) => return ended(said),
            Heard::Due => return ended(internal("a hedge of a hedge")),
            Heard::Client(fault) => {
                drop((first, second));
                return self.client_fault(fault).await;
            }
        };
        match kept {
            Action::Keep(Leg::First) => {
                self.dismiss(second, answered.filter(|(leg, _)| *leg == Leg::Second));
                self.account.resume_attempt(&attempt.endpoint, before);
                self.go_on(first).await
            }
            Action::Keep(Leg::Second) => {
                self.dismiss(first, answered.filter(|(leg, _)| *leg == Leg::First));
                self.go_on(second).await
            }
            other => refused(other),
        }
    }

    /// A leg that begins: on an idle connection at once, if there is one.
    fn contender<'c>(&self, attempt: &'c Attempt, collected: Option<&'c mut Collected>) -> Result<Contender<'c>, Said>
    where
        'd: 'c,
    {
        let connector = self.connector();
        let stage = match connector.idle(attempt, self.is_careful(true)) {
            Some(mut connection) => {
                let shape = self.write_request_head(&mut connection.write, attempt, collected);
                Stage::Asking(asking(connection, attempt, shape)?)
            }
            None => {
                let mut head = BytesMut::new();
                let shape = Some(self.write_request_head(&mut head, attempt, collected));
                let opening = Box::pin(connector.open(attempt, self.first_bytes(attempt)));
                Stage::Connecting(Connecting { opening, head, shape })
            }
        };
        Ok(Contender { attempt, stage })
    }

    /// Waits for whatever comes first. Interim heads are passed on meanwhile, whichever leg they come from.
    async fn listen(
        &mut self,
        first: &mut Contender<'_>,
        mut second: Option<&mut Contender<'_>>,
        until: Option<Instant>,
    ) -> Heard {
        let mut timer = Timer::default();
        let is_alone = second.is_none();
        poll_fn(|cx| {
            if let Poll::Ready(said) = self.poll_leg(cx, first, is_alone) {
                return Poll::Ready(Heard::Said(Leg::First, said));
            }
            if let Some(second) = second.as_deref_mut()
                && let Poll::Ready(said) = self.poll_leg(cx, second, is_alone)
            {
                return Poll::Ready(Heard::Said(Leg::Second, said));
            }
            if let Some(until) = until
                && timer.poll_expired(cx, until.into())
            {
                return Poll::Ready(Heard::Due);
            }
            if let Poll::Ready(Err(fault)) = self.down.poll_flush(cx) {
                return Poll::Ready(Heard::Client(fault));
            }
            self.down.poll_gone(cx).map(Heard::Client)
        })
        .await
    }

    /// Ready with what a leg has said but for interim heads, which the client has then.
    fn poll_leg(&mut self, cx: &mut Context<'_>, contender: &mut Contender<'_>, is_alone: bool) -> Poll<Said> {
        loop {
            let said = ready!(contender.poll(cx, is_alone));
            let (Said::Head(length), Stage::Asking(asking)) = (&said, &mut contender.stage) else {
                return Poll::Ready(said);
            };
            if !asking.is_interim() {
                return Poll::Ready(said);
            }
            if let Err(failure) = asking.pass_interim(*length, self.down, self.exchange, &self.view.traffic) {
                return Poll::Ready(Said::Failed(failure));
            }
        }
    }

    /// A final head has arrived; whether it wins.
    fn answered(&mut self, leg: Leg, contender: &Contender<'_>) -> Action {
        let Stage::Asking(asking) = &contender.stage else { return Action::Done };
        let fields = ResponseFields { head: &asking.up.head, bytes: &asking.up.read };
        let view = ResponseView { status: asking.up.head.status(), fields: &fields, replayable: true };
        let came = asking.arrival().unwrap_or_else(Instant::now);
        self.exchange.step(&self.view.traffic, Event::LegAnswered(leg, view), came)
    }

    /// Closes the connection of a leg, unless it was its answer that gave way, and all of that is there.
    fn dismiss(&self, contender: Contender<'_>, answered: Option<(Leg, usize)>) {
        if let (Stage::Asking(mut asking), Some((_, length))) = (contender.stage, answered) {
            let reusable = asking.discard(length);
            self.give_back(contender.attempt, asking.up, reusable);
        }
    }

    /// The leg is an attempt like any other.
    async fn go_on(&mut self, kept: Contender<'_>) -> Attempted {
        match kept.connected().await {
            Ok((attempt, asking)) => self.relay(attempt, *asking).await,
            Err(said) => ended(said),
        }
    }
}

/// How an attempt has ended without an answer.
fn ended(said: Said) -> Attempted {
    match said {
        Said::Failed(failure) => Attempted::Failed(failure),
        Said::Refused(refusal) => Attempted::Refused(refusal),
        Said::Head(_) => ended(internal("a head that nobody reads")),
    }
}

/// What the exchange says instead of going on: its time is over.
fn refused(action: Action) -> Attempted {
    match action {
        Action::Respond(Answer::Refused(refusal)) => Attempted::Refused(refusal),
        other => ended(internal(format!("a race led to an unexpected action: {other:?}"))),
    }
}

fn internal(detail: impl Into<Cow<'static, str>>) -> Said {
    Said::Refused(Refusal::new(RefusalKind::Internal, detail))
}
