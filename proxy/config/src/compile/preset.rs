//! Presets: what is known of a server program, as the command, environment and numbers that an operator would have to
//! find out. Whatever the file says itself wins.
//!
//! The command is the program (one word, or how the file starts it), the application, what the preset adds, then `args`.
//! The preset leaves out each option that `args` has, so the command never says a thing twice.

mod argument;
mod recipe;

use std::time::Duration;

use super::worker::Usage;
use crate::fault::Code;
use crate::model::{Preset, Readiness, Template, WorkerProgram, WorkerTransport};
use crate::raw;
use crate::report::Report;
use crate::template::{Piece, pieces};
use crate::tree::Spot;
use crate::units::format_duration;
use argument::{find, has};
pub(super) use recipe::Recipe;
use recipe::{Cap, Listen, Unit};

/// What the file says beside the preset's name.
pub(super) struct Given {
    pub(super) command: Option<Vec<String>>,
    pub(super) app: Option<String>,
    pub(super) args: Vec<String>,
    pub(super) transport: WorkerTransport,
    pub(super) keep_alive: Option<Duration>,
    /// Most requests under way with each worker.
    pub(super) cap: Option<u32>,
    /// Most WebSockets and long streams it has besides.
    pub(super) max_tunnels: u32,
}

/// What it comes to.
pub(super) struct Expansion {
    pub(super) command: Vec<String>,
    pub(super) program: WorkerProgram,
    pub(super) ready: Readiness,
    pub(super) cap: Option<u32>,
    /// Each request takes a thread, as long as it lasts.
    pub(super) holds_threads: bool,
}

/// Connections besides those of requests and tunnels: one that closes while the next one opens, and one for probes.
const BESIDES: u32 = 2;

/// What custom workers come to: their command as it is. Of nothing that is not known a limit is assumed: a program that serves
/// thousands at a time would refuse most of them.
pub(super) fn custom(given: Given, workers: Spot<'_>, report: &mut Report) -> Option<Expansion> {
    for key in ["app", "args"] {
        if workers.has(key) {
            let problem = format!("without a preset \"{key}\" means nothing: the command says it all");
            report
                .fault(workers.key(key).key_span(), Code::Conflict, problem)
                .hint("write it into command, or name a preset: uvicorn, granian, gunicorn, hypercorn, node or puma");
        }
    }
    if !workers.has("command") && !workers.is_damaged() {
        let problem = "workers need a \"command\", or a \"preset\" with its \"app\"";
        report.fault(workers.span(), Code::MissingKey, problem).hint(
            "for example preset: uvicorn, app: \"main:app\"; or command: [uvicorn, \"main:app\", --uds, \"{socket}\"]",
        );
    }
    let program = WorkerProgram { keep_alive: given.keep_alive, ..WorkerProgram::default() };
    let (command, ready, cap) = (given.command?, Readiness::Connect, given.cap);
    Some(Expansion { command, program, ready, cap, holds_threads: false })
}

/// What a preset comes to.
pub(super) fn expand(
    preset: Preset,
    recipe: &'static Recipe,
    given: Given,
    workers: Spot<'_>,
    usage: &mut Usage,
    report: &mut Report,
) -> Option<Expansion> {
    let writer = Writer { preset, recipe, workers };
    writer.check_command(given.command.as_deref().unwrap_or_default(), report);
    writer.check_args(&given.args, report);
    let Given { command, app, args, transport, keep_alive, cap, max_tunnels } = given;
    let app = writer.app(app, report)?;
    let listen = writer.listen(transport, report)?;
    let keep_alive = writer.keep_alive(&args, keep_alive, report)?;
    let cap = writer.cap(cap, &args, report);
    let holds_threads = match recipe.cap {
        Cap::Threads { .. } => true,
        Cap::ByWorkerClass => gunicorn_threads(&args).is_some(),
        Cap::Fixed(_) | Cap::Budget { .. } => false,
    };
    let mut command = command.unwrap_or_else(|| vec![recipe.program.to_owned()]);
    command.extend(app);
    let mut add = |words: &[&str]| {
        if !words.first().is_some_and(|name| has(&args, &[name])) {
            command.extend(words.iter().map(|word| (*word).to_owned()));
        }
    };
    for words in recipe.always {
        add(words);
    }
    add(listen.words);
    if let Some(option) = &recipe.keep_alive.option {
        add(&[option.name, &option.unit.write(keep_alive)]);
    }
    match recipe.cap {
        Cap::Budget { option, .. } => {
            add(&[option, &cap.saturating_add(max_tunnels).saturating_add(BESIDES).to_string()])
        }
        Cap::Threads { option, .. } if has(&args, option) => {}
        Cap::Threads { option, .. } => add(&[option[0], &format!("{cap}:{cap}")]),
        Cap::Fixed(_) | Cap::ByWorkerClass => {}
    }
    command.extend(args);
    let env: Vec<_> = listen.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for text in command.iter().chain(env.iter().map(|(_, value)| value)) {
        usage.note(text);
    }
    let ready = recipe.ready.map_or(Readiness::Connect, |path| Readiness::Http(path.to_owned()));
    let program = WorkerProgram { preset, keep_alive: Some(keep_alive), env };
    Some(Expansion { command, program, ready, cap: Some(cap), holds_threads })
}

/// One expansion under way.
struct Writer<'a> {
    preset: Preset,
    recipe: &'static Recipe,
    workers: Spot<'a>,
}

impl Writer<'_> {
    /// The command of a preset only starts the program.
    fn check_command(&self, command: &[String], report: &mut Report) {
        let says_address = |word: &String| {
            let is_address =
                |template| matches!(template, Template::Socket | Template::Port | Template::Host | Template::Fd);
            pieces(word).into_iter().any(|piece| matches!(piece, Piece::Template(template) if is_address(template)))
        };
        let spot = self.workers.key("command");
        let Some(index) = command.iter().position(says_address) else { return };
        let word = self.preset.word();
        let problem = format!("the preset {word} says where workers listen, and adds that to this command");
        report
            .fault(spot.item(index).span(), Code::Conflict, problem)
            .related(self.workers.key("preset").span(), "the preset is here")
            .hint("leave only what starts the program, such as [venv/bin/PROGRAM], and write app and args; or remove preset");
    }

    /// Arguments that would take from us what we need to know.
    fn check_args(&self, args: &[String], report: &mut Report) {
        for (names, problem, hint) in self.recipe.refused {
            let Some(found) = find(args, names) else { continue };
            let spot = self.workers.key("args").item(found.index);
            report.fault(spot.span(), Code::Conflict, *problem).hint(*hint);
        }
        for (names, problem, hint) in self.recipe.doubtful {
            let Some(found) = find(args, names) else { continue };
            let spot = self.workers.key("args").item(found.index);
            report.warning(spot.span(), Code::Suspicious, *problem).hint(*hint);
        }
    }

    /// How the program is told where to listen.
    fn listen(&self, transport: WorkerTransport, report: &mut Report) -> Option<&'static Listen> {
        let listen = self.recipe.listen(transport);
        if listen.is_none() {
            let problem = format!("the preset {} cannot hand over a socket", self.preset.word());
            let hint = "write transport: unix; or leave out preset and say the command";
            report.fault(self.workers.key("transport").span(), Code::Conflict, problem).hint(hint);
        }
        listen
    }

    /// The application as a word of the command; none where the program finds its own.
    #[expect(clippy::option_option, reason = "faulty differs from not given")]
    fn app(&self, app: Option<String>, report: &mut Report) -> Option<Option<String>> {
        let word = self.preset.word();
        let Some(app) = app else {
            let is_fine = self.recipe.finds_app || self.workers.has("app") || self.workers.is_damaged();
            if !is_fine {
                let problem = format!("the preset {word} needs \"app\"");
                let hint = format!("for example app: \"{}\"", self.recipe.example);
                report.fault(self.workers.key("preset").span(), Code::MissingKey, problem).hint(hint);
            }
            return is_fine.then_some(None);
        };
        if app.starts_with('-') {
            let problem = format!("\"{}\" is an option, not an application", self.workers.key("app").shown(&app));
            let hint = format!("options stand in args; for example app: \"{}\"", self.recipe.example);
            report.fault(self.workers.key("app").span(), Code::BadValue, problem).hint(hint);
            return None;
        }
        Some(Some(app))
    }

    /// The worker's own time: that of `args`, else of the file, else of the preset.
    fn keep_alive(&self, args: &[String], given: Option<Duration>, report: &mut Report) -> Option<Duration> {
        let recipe = &self.recipe.keep_alive;
        let known = given.unwrap_or(recipe.default);
        let Some(option) = &recipe.option else { return Some(known) };
        let spot = self.workers.key("keep_alive");
        if let Some(found) = find(args, &[option.name]) {
            let place = self.workers.key("args").item(found.index).span();
            if given.is_some() {
                let problem = format!("the argument {} says it too", option.name);
                let finding = report.fault(spot.key_span(), Code::Conflict, problem);
                finding.related(place, "the argument is here").hint("remove one of both");
                return None;
            }
            let time = found.value.and_then(|text| text.parse().ok()).map(|number| option.unit.read(number));
            if time.is_none() {
                let problem =
                    format!("{} has to be a number here: how long we keep connections follows it", option.name);
                report.fault(place, Code::BadValue, problem).hint("remove the argument, and write keep_alive: 75s");
            }
            return time;
        }
        let word = self.preset.word();
        if option.unit == Unit::Seconds && (known.subsec_millis() != 0 || known.is_zero()) {
            let problem = format!("{word} counts in whole seconds, from 1");
            report.fault(spot.span(), Code::BadValue, problem).hint("write keep_alive: 75s");
            return None;
        }
        if let Some(most) = option.most.filter(|most| known > *most || known.is_zero()) {
            let problem =
                format!("{word} keeps connections for {} at the most, and 1ms at least", format_duration(most));
            report.fault(spot.span(), Code::BadValue, problem).hint("write keep_alive: 60s, or remove it");
            return None;
        }
        Some(known)
    }

    fn cap(&self, given: Option<u32>, args: &[String], report: &mut Report) -> u32 {
        match self.recipe.cap {
            Cap::Fixed(cap) => given.unwrap_or(cap),
            Cap::Budget { option, default } => {
                let cap = given.unwrap_or(default);
                self.check_budget(args, option, cap, report);
                cap
            }
            Cap::Threads { option, default } => {
                let threads = find(args, option).and_then(|found| found.value);
                let most = threads.and_then(|text| text.rsplit(':').next()?.parse().ok());
                given.or(most).unwrap_or(default).max(1)
            }
            Cap::ByWorkerClass => given.unwrap_or_else(|| gunicorn_threads(args).unwrap_or(32)),
        }
    }

    /// A budget of connections that requests alone could use up starves what is idle or long.
    fn check_budget(&self, args: &[String], option: &str, cap: u32, report: &mut Report) {
        let Some(found) = find(args, &[option]) else { return };
        let budget: Option<u32> = found.value.and_then(|text| text.parse().ok());
        if budget.is_some_and(|budget| budget < cap.saturating_add(2)) {
            let word = self.preset.word();
            let problem =
                format!("{word} counts idle connections too: with fewer than {} it makes requests wait", cap + 2);
            report
                .warning(self.workers.key("args").item(found.index).span(), Code::Suspicious, problem)
                .hint("remove the argument, and write cap");
        }
    }
}

/// gunicorn's default class serves one request at a time; threads serve as many as there are. The other classes have none for
/// each request, and serve many.
fn gunicorn_threads(args: &[String]) -> Option<u32> {
    let threads: u32 = find(args, &["--threads"])
        .and_then(|found| found.value?.parse().ok())
        .filter(|threads| *threads > 0)
        .unwrap_or(1);
    match find(args, &["--worker-class", "-k"]).and_then(|found| found.value) {
        None | Some("sync" | "gthread") => Some(threads),
        Some(_) => None,
    }
}

/// The texts of `args`.
pub(super) fn args(raw: Option<Vec<raw::Text>>, spot: Spot<'_>, usage: &mut Usage, report: &mut Report) -> Vec<String> {
    let texts: Vec<String> = raw.unwrap_or_default().into_iter().map(|raw::Text(text)| text).collect();
    for (index, text) in texts.iter().enumerate() {
        usage.look_at(text, spot.item(index), report);
    }
    texts
}
