//! Workers: how processes are started, reached and stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::preset::{self, Recipe};
use super::ready::Ready;
use super::{Scene, account, file_path, keep};
use crate::fault::Code;
use crate::model::{EnvInherit, Preset, Template, WorkerCount, WorkerLogFile, WorkerSpec, WorkerTransport};
use crate::raw;
use crate::report::Report;
use crate::suggest::did_you_mean;
use crate::template::{Piece, pieces};
use crate::tree::Spot;
use crate::units::Reason;

/// A group of workers, and what follows from its program.
pub(super) struct Workers {
    pub(super) spec: WorkerSpec,
    /// Most requests under way with each of them.
    pub(super) cap: Option<u32>,
    /// Where their lines go.
    pub(super) log: Option<WorkerLogFile>,
    /// What they are replaced for when it changes.
    pub(super) watch: Vec<PathBuf>,
    /// Whether it is worked out what requests cost.
    pub(super) cost: bool,
    /// Each request takes a thread, as long as it lasts.
    pub(super) holds_threads: bool,
    /// How long one request may take.
    pub(super) request_times: super::request_timeout::RequestTimes,
}

/// What the upstream says of what each worker takes.
pub(super) struct Given {
    /// Most requests under way.
    pub(super) cap: Option<u32>,
    /// Most tunnels.
    pub(super) max_tunnels: Option<u32>,
}

/// Compiles one group of workers.
pub(super) fn workers(
    raw: raw::Workers,
    upstream: Given,
    spot: Spot<'_>,
    scene: &Scene<'_>,
    report: &mut Report,
) -> Option<Workers> {
    let raw::Workers {
        preset,
        app,
        args,
        keep_alive,
        cap,
        command,
        count,
        cwd,
        env,
        env_inherit,
        user,
        transport,
        ready,
        warmup,
        warmup_timeout,
        boot_timeout,
        drain_timeout,
        stream_grace,
        stop_timeout,
        pre_start,
        pre_start_timeout,
        deploy,
        on_hup,
        recycle,
        logs,
        restart,
        hang,
        request_timeout,
        abandoned_hold,
        env_file,
        limits,
        umask,
        stop_signal,
        watch,
        cost,
    } = raw;
    let is_named = preset.is_some() || !spot.has("preset");
    let preset = preset.map_or(Preset::Custom, Preset::from);
    let recipe = Recipe::of(preset);
    let usual = recipe.map_or(WorkerTransport::Unix, |recipe| recipe.transport);
    let transport = transport.map_or(usual, WorkerTransport::from);
    let mut usage = Usage { transport, found: Vec::new(), sound: true };
    let command = command.and_then(|command| argv(command, spot.key("command"), &mut usage, report));
    let args = preset::args(args, spot.key("args"), &mut usage, report);
    let env = variables(env.unwrap_or_default(), spot.key("env"), &mut usage, report);
    let (keep_alive, cap) = (keep_alive.map(|time| time.0), cap.or(upstream.cap));
    let max_tunnels = upstream.max_tunnels.unwrap_or_default();
    let given = preset::Given { command, app, args, transport, keep_alive, cap, max_tunnels };
    let expansion = match recipe {
        Some(recipe) => preset::expand(preset, recipe, given, spot, &mut usage, report),
        None if is_named => preset::custom(given, spot, report),
        None => None,
    };
    usage.check_address(spot, report);
    let user_spot = spot.key("user");
    let user = user.map(|name| account(name, user_spot, report));
    let ready = ready.map(|ready| super::ready::ready(ready, spot.key("ready"), report));
    let env_inherit = inherit(env_inherit, spot.key("env_inherit"), report);
    let cwd = cwd.map(|cwd| file_path(&cwd, spot.key("cwd"), report));
    let log = super::worker_logs::worker_logs(logs, spot.key("logs"), report);
    let launch = super::launch::launch(super::launch::Keys { env_file, limits, umask, stop_signal }, spot, report);
    let expansion = expansion?;
    let is_given = ready.is_some();
    let mut ready = transpose(ready)?.unwrap_or(Ready { when: expansion.ready, interval: None });
    if transport == WorkerTransport::Fd {
        super::ready::for_inherited(&mut ready.when, is_given, spot, report);
    }
    let holds_threads = expansion.holds_threads || expansion.cap == Some(1);
    let known = super::hang::Known { ready: &ready.when, holds_threads };
    let request_times = super::request_timeout::times(request_timeout, abandoned_hold, holds_threads, spot, report);
    let hang = super::hang::hang(hang, &known, spot.key("hang"), report);
    let spec = WorkerSpec {
        command: expansion.command,
        count: worker_count(count),
        transport,
        cwd,
        env: expansion.program.env.iter().cloned().chain(env?).collect(),
        env_inherit: env_inherit?,
        env_secret: scene.variables.iter().filter(|name| !is_common(name)).cloned().collect(),
        user: transpose(user)?,
        ready: ready.when,
        ready_interval: ready.interval,
        warmup: super::warmup::warmup(warmup, warmup_timeout, spot, report),
        boot_timeout: boot_timeout.map_or(Duration::from_secs(60), |time| time.0),
        drain_timeout: drain_timeout.map_or(Duration::from_secs(30), |time| time.0),
        stream_grace: stream_grace.map_or(WorkerSpec::STREAM_GRACE, |time| time.0),
        stop_timeout: stop_timeout.map_or(Duration::from_secs(10), |time| time.0),
        pre_start: super::pre_start::pre_start(pre_start, pre_start_timeout, spot, report),
        deploy: super::deploy::deploy(deploy, on_hup, watch.is_some(), spot.key("deploy"), report),
        recycle: super::recycle::recycle(recycle, spot.key("recycle"), report),
        restart: super::restart::restart(restart),
        hang,
        launch: launch?,
        program: expansion.program,
    };
    let watch = super::watch::paths(watch.unwrap_or_default(), spot.key("watch"), report);
    let (cost, holds_threads) = (cost.unwrap_or(false), expansion.holds_threads);
    Some(Workers { spec, cap: expansion.cap, log, watch, cost, holds_threads, request_times })
}

/// `None` for a value that was given and faulty.
#[expect(clippy::option_option, reason = "given and faulty differs from not given")]
fn transpose<T>(given: Option<Option<T>>) -> Option<Option<T>> {
    given.map_or(Some(None), |value| value.map(Some))
}

/// Variables that hold no secret even when the file refers to them: those of `env_inherit: clean`.
fn is_common(name: &str) -> bool {
    matches!(name, "PATH" | "HOME" | "LANG" | "TZ" | "USER") || name.starts_with("LC_")
}

fn worker_count(raw: Option<raw::WorkerCount>) -> WorkerCount {
    match raw {
        None | Some(raw::WorkerCount::Word(raw::AutoWord::Auto)) => WorkerCount::Auto,
        Some(raw::WorkerCount::Number(count)) => WorkerCount::Fixed(count),
    }
}

fn argv(raw: Vec<raw::Text>, spot: Spot<'_>, usage: &mut Usage, report: &mut Report) -> Option<Vec<String>> {
    let command: Vec<String> = raw.into_iter().map(|raw::Text(text)| text).collect();
    if let [line] = command.as_slice()
        && line.contains(char::is_whitespace)
    {
        usage.sound = false;
        let words: Vec<String> = line.split_whitespace().map(|word| format!("\"{word}\"")).collect();
        let reason = Reason::new(
            "is a shell line, not a program",
            format!("write each word on its own: [{}]", words.join(", ")),
        );
        return keep(Err(reason), line, spot.item(0), report);
    }
    if command.first().is_some_and(String::is_empty) {
        usage.sound = false;
        report
            .fault(spot.item(0).span(), Code::BadValue, "the program has no name")
            .hint("write its path or name first");
        return None;
    }
    for (index, argument) in command.iter().enumerate() {
        let spot = spot.item(index);
        usage.look_at(argument, spot, report);
        if matches!(argument.as_str(), "&&" | "||" | "|" | ">" | ">>") {
            let problem = format!("\"{argument}\" is passed to the program as it is: there is no shell");
            report.warning(spot.span(), Code::Suspicious, problem).hint("for a shell write [sh, -c, \"exec ...\"]");
        }
    }
    usage.sound.then_some(command)
}

fn variables(
    raw: raw::Named<raw::Text>,
    spot: Spot<'_>,
    usage: &mut Usage,
    report: &mut Report,
) -> Option<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    let mut sound = true;
    for (name, raw::Text(value)) in raw.0 {
        let spot = spot.key(&name);
        usage.look_at(&value, spot, report);
        sound &= variable_name(&name, spot, report);
        variables.insert(name, value);
    }
    (sound && usage.sound).then_some(variables)
}

fn variable_name(name: &str, spot: Spot<'_>, report: &mut Report) -> bool {
    let is_name = !name.is_empty() && !name.contains(['=', '\0']);
    if !is_name {
        let problem = format!("\"{}\" is not the name of a variable", crate::walk::shorten(name));
        report.fault(spot.key_span(), Code::BadValue, problem);
    }
    is_name
}

/// Which templates a group of workers uses.
pub(super) struct Usage {
    transport: WorkerTransport,
    found: Vec<Template>,
    sound: bool,
}

impl Usage {
    /// Takes note of the templates in a text that is known to be sound.
    pub(super) fn note(&mut self, text: &str) {
        let templates = pieces(text).into_iter().filter_map(|piece| match piece {
            Piece::Template(template) => Some(template),
            Piece::Literal(_) | Piece::Braced(_) | Piece::Unknown(_) => None,
        });
        self.found.extend(templates);
    }

    /// Reports unknown templates and those that have no value with this transport.
    pub(super) fn look_at(&mut self, text: &str, spot: Spot<'_>, report: &mut Report) {
        if text.contains('\0') {
            self.sound = false;
            report.fault(spot.span(), Code::BadValue, "a zero byte cannot be passed to a program");
        }
        for piece in pieces(text) {
            match piece {
                Piece::Literal(_) | Piece::Braced(_) => {}
                Piece::Unknown(word) => self.refuse_unknown(word, spot, report),
                Piece::Template(template) => {
                    self.found.push(template);
                    self.refuse_other_transport(template, spot, report);
                }
            }
        }
    }

    fn refuse_unknown(&mut self, word: &str, spot: Spot<'_>, report: &mut Report) {
        self.sound = false;
        let known = Template::ALL.map(Template::word);
        let hint = did_you_mean(word, known).unwrap_or_else(|| {
            let known: Vec<String> = known.iter().map(|word| format!("{{{word}}}")).collect();
            format!("known are {}; write \"{{{{{word}}}\" for the text itself", known.join(", "))
        });
        if spot.is_expanded() {
            // Where the word comes from a variable it may be part of a secret.
            let problem =
                format!("the value of \"{}\" has a word in braces that is replaced by nothing", spot.shown(""));
            report.fault(spot.span(), Code::UnknownName, problem).hint("a brace in the value must be doubled: {{");
            return;
        }
        let problem = format!("\"{{{word}}}\" is replaced by nothing");
        report.fault(spot.span(), Code::UnknownName, problem).hint(hint);
    }

    fn refuse_other_transport(&mut self, template: Template, spot: Spot<'_>, report: &mut Report) {
        let (problem, hint) = match (template, self.transport) {
            (Template::Socket, WorkerTransport::Port) => {
                ("these workers have no {socket}: their transport is port", "write {port}, or transport: unix")
            }
            (Template::Port | Template::Host, WorkerTransport::Unix) => {
                ("these workers have no port: their transport is unix", "write {socket}, or transport: port")
            }
            (Template::Socket | Template::Port | Template::Host, WorkerTransport::Fd) => {
                ("these workers inherit their socket: their transport is fd", "write {fd}, or transport: unix or port")
            }
            (Template::Fd, WorkerTransport::Unix | WorkerTransport::Port) => {
                ("these workers inherit no socket", "write transport: fd")
            }
            _ => return,
        };
        self.sound = false;
        report.fault(spot.span(), Code::Conflict, problem).hint(hint);
    }

    /// A worker must be told where to listen.
    fn check_address(&self, spot: Spot<'_>, report: &mut Report) {
        let is_complete = self.sound && !spot.is_damaged() && !spot.key("command").is_damaged() && spot.has("command");
        if !is_complete {
            return;
        }
        let span = spot.key("command").key_span();
        match self.transport {
            WorkerTransport::Unix if !self.found.contains(&Template::Socket) => {
                let problem = "the command is never told its socket: neither it nor env mentions {socket}";
                let hint = "pass it on, as in [uvicorn, \"main:app\", --uds, \"{socket}\"], or write transport: port";
                report.fault(span, Code::Conflict, problem).hint(hint);
            }
            WorkerTransport::Port if !self.found.contains(&Template::Port) => {
                let problem = "neither the command nor env mentions {port}";
                let hint = "fine if the program listens on the port in the variable PORT; else pass {port}";
                report.warning(span, Code::Suspicious, problem).hint(hint);
            }
            WorkerTransport::Fd if !self.found.contains(&Template::Fd) => {
                let problem = "neither the command nor env mentions {fd}";
                let hint = "fine if the program takes sockets from systemd (LISTEN_FDS); else pass {fd}";
                report.warning(span, Code::Suspicious, problem).hint(hint);
            }
            WorkerTransport::Unix | WorkerTransport::Port | WorkerTransport::Fd => {}
        }
    }
}

fn inherit(raw: Option<raw::EnvInherit>, spot: Spot<'_>, report: &mut Report) -> Option<EnvInherit> {
    match raw {
        None | Some(raw::EnvInherit::Word(raw::EnvInheritWord::All)) => Some(EnvInherit::All),
        Some(raw::EnvInherit::Word(raw::EnvInheritWord::Clean)) => Some(EnvInherit::Clean),
        Some(raw::EnvInherit::Names(names)) => {
            let count = names.len();
            let sound = super::each(names, spot, report, |name, spot, report| {
                variable_name(&name, spot, report).then_some(name)
            });
            (sound.len() == count).then_some(EnvInherit::Only(sound))
        }
    }
}

impl From<raw::WorkerTransport> for WorkerTransport {
    fn from(raw: raw::WorkerTransport) -> Self {
        match raw {
            raw::WorkerTransport::Unix => Self::Unix,
            raw::WorkerTransport::Port => Self::Port,
            raw::WorkerTransport::Fd => Self::Fd,
        }
    }
}
