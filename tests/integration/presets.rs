//! Presets with the real programs: each serves with nothing but its application named, is not ready before that is, and
//! loses no request to the close of an idle connection.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    drill::{amount, say, seed},
    edge::{Edge, Home},
    process::is_alive,
    python,
    random::Random,
    site::Site,
    wait::{wait_blocking, wait_for, wait_until},
};
use tokio::{
    task::{JoinSet, LocalSet},
    time::sleep,
};

/// One program in one form.
struct Form {
    name: &'static str,
    /// What the file says of it; `@bin@` is the folder of Python programs.
    workers: &'static str,
    /// More of it, so that idle connections end after two seconds.
    short: &'static str,
    /// What its keep-alive is without that, in seconds.
    keep_alive: u64,
    /// Requests that its worker gets at a time.
    cap: usize,
    /// It tells the application who the client is.
    knows_client: bool,
    /// A line of what `check` prints.
    command: &'static str,
}

const FORMS: &[Form] = &[
    Form {
        name: "uvicorn",
        workers: "preset: uvicorn, command: [\"@bin@/uvicorn\"], app: \"asgi:app\"",
        short: "args: [--timeout-keep-alive, 2]",
        keep_alive: 75,
        cap: 32,
        knows_client: true,
        command: "/uvicorn asgi:app --uds {socket} --timeout-keep-alive 75\n",
    },
    Form {
        name: "uvicorn-port",
        workers: "preset: uvicorn, command: [\"@bin@/python\", -m, uvicorn], app: \"asgi:app\", transport: port",
        short: "keep_alive: 2s",
        keep_alive: 75,
        cap: 32,
        knows_client: true,
        command: "/python -m uvicorn asgi:app --port {port} --host {host} --timeout-keep-alive 75\n",
    },
    Form {
        name: "uvicorn-fd",
        workers: "preset: uvicorn, command: [\"@bin@/uvicorn\"], app: \"asgi:app\", transport: fd",
        short: "keep_alive: 2s",
        keep_alive: 75,
        cap: 32,
        knows_client: true,
        command: "/uvicorn asgi:app --fd {fd} --timeout-keep-alive 75\n",
    },
    Form {
        name: "gunicorn-fd",
        workers: "preset: gunicorn, command: [\"@bin@/gunicorn\"], app: \"wsgi:app\", transport: fd",
        short: "keep_alive: 2s",
        keep_alive: 75,
        cap: 1,
        knows_client: false,
        command: "/gunicorn wsgi:app --workers 1 --no-control-socket --timeout 0 --bind fd://{fd} --keep-alive 75\n",
    },
    Form {
        name: "hypercorn-fd",
        workers: "preset: hypercorn, command: [\"@bin@/hypercorn\"], app: \"asgi:app\", transport: fd",
        short: "args: [--keep-alive=2]",
        keep_alive: 75,
        cap: 32,
        knows_client: false,
        command: "/hypercorn asgi:app --workers 0 --bind fd://{fd} --keep-alive 75\n",
    },
    Form {
        name: "granian",
        workers: "preset: granian, command: [\"@bin@/granian\"], app: \"asgi:app\"",
        short: "keep_alive: 2s",
        keep_alive: 60,
        cap: 32,
        knows_client: false,
        command: "/granian asgi:app --interface asgi --workers 1 --uds {socket} --http1-header-read-timeout 60000 --backpressure 1034\n",
    },
    Form {
        name: "granian-wsgi",
        workers: "preset: granian, command: [\"@bin@/granian\"], app: \"wsgi:app\", cap: 8",
        short: "args: [--interface, wsgi, --http1-header-read-timeout, 2000]",
        keep_alive: 60,
        cap: 8,
        knows_client: false,
        command: "",
    },
    Form {
        name: "gunicorn",
        workers: "preset: gunicorn, command: [\"@bin@/gunicorn\"], app: \"wsgi:app\"",
        short: "keep_alive: 2s",
        keep_alive: 75,
        cap: 1,
        knows_client: false,
        command: "/gunicorn wsgi:app --workers 1 --no-control-socket --timeout 0 --bind unix:{socket} --keep-alive 75\n",
    },
    Form {
        name: "gunicorn-threads",
        workers: "preset: gunicorn, command: [\"@bin@/gunicorn\"], app: \"wsgi:app\"",
        short: "args: [--threads, 8], keep_alive: 2s",
        keep_alive: 75,
        cap: 8,
        knows_client: false,
        command: "",
    },
    Form {
        name: "gunicorn-uvicorn",
        workers: "preset: gunicorn, command: [\"@bin@/gunicorn\"], app: \"asgi:app\"",
        short: "args: [-k, uvicorn_worker.UvicornWorker, --keep-alive, 2]",
        keep_alive: 75,
        cap: 32,
        knows_client: true,
        command: "",
    },
    Form {
        name: "hypercorn",
        workers: "preset: hypercorn, command: [\"@bin@/hypercorn\"], app: \"asgi:app\"",
        short: "args: [--keep-alive=2]",
        keep_alive: 75,
        cap: 32,
        knows_client: false,
        command: "/hypercorn asgi:app --workers 0 --bind unix:{socket} --keep-alive 75\n",
    },
    Form {
        name: "node",
        workers: "preset: node, app: server.js",
        short: "args: [2000], keep_alive: 2s",
        keep_alive: 5,
        cap: 64,
        knows_client: true,
        command: "  node server.js\n  env         PORT={port} HOST={host}\n",
    },
    Form {
        name: "node-socket",
        workers: "preset: node, app: server.js, transport: unix",
        short: "args: [2000], keep_alive: 2s",
        keep_alive: 5,
        cap: 64,
        knows_client: true,
        command: "  node server.js\n  env         PORT={socket} SOCKET={socket}\n",
    },
    Form {
        name: "puma",
        workers: "preset: puma",
        short: "args: [-C, puma.rb], keep_alive: 2s",
        keep_alive: 20,
        cap: 5,
        knows_client: true,
        command: "  puma -w 0 -b unix://{socket} -t 5:5\n",
    },
];

impl Form {
    /// As many as its worker takes at a time, so that nobody waits for anything but the pause.
    fn clients(&self) -> usize {
        self.cap.min(16)
    }
}

/// Starts of applications take so long that one which is taken for ready too early shows.
const BOOT_DELAY: Duration = Duration::from_millis(1_500);
/// Fourteen interpreters start, two at a time.
const LIMIT: Duration = Duration::from_secs(90);

/// All forms behind one edge, each by a path of its own. One shard, so that each request finds the idle connections of
/// those before.
fn site(short: bool, env: &str) -> Site {
    let (mut routes, mut upstreams) = (String::new(), String::new());
    for Form { name, workers, short: more, .. } in FORMS {
        // What selects the interface or class belongs to the form, whatever its keep-alive.
        let is_form = more.contains("wsgi") || more.contains("--threads") || more.contains("-k,");
        let more = match (short, is_form) {
            (true, _) => format!(", {more}"),
            (false, true) => format!(", {}", long(more)),
            (false, false) => String::new(),
        };
        routes.push_str(&format!("- {{ path: /{name}, proxy: {name} }}\n"));
        upstreams.push_str(&format!(
            "{name}: {{ workers: {{ {workers}{more}, count: 1, cwd: \"@apps@\", env: {{ {env} }} }} }}\n"
        ));
    }
    let bin = python::program("python").parent().expect("a file has a folder").display().to_string();
    Site::usual(&routes, &upstreams)
        .with("bin", bin)
        .with("apps", python::preset_apps().display())
        .and("server: { shards: 1, runtime_dir: \"@dir@/run\", state_dir: \"@dir@/state\" }")
}

/// A form's more without what makes it short.
fn long(more: &str) -> String {
    let more = more.replace(", --http1-header-read-timeout, 2000", "").replace(", --keep-alive, 2", "");
    more.replace(", keep_alive: 2s", "")
}

async fn ask(client: Client, form: &str) -> Result<Answer, String> {
    // Nothing that may be sent again: a request that is lost is seen.
    let answer = client.send(Ask::post(&format!("/{form}/"), "hi")).await.map_err(|error| format!("{error:#}"))?;
    match answer.status.as_u16() {
        200 if answer.is_complete() => Ok(answer),
        status => Err(format!("{status} {:?}", answer.header("x-tidegate-reason"))),
    }
}

// Once: it is about processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presets_serve_once_their_application_does() {
    let home = Home::new(&site(false, &format!("BOOT_DELAY: \"{}\"", BOOT_DELAY.as_secs_f64())));
    let printed = home.tidegate(&["check"]).await;
    assert!(printed.status.success(), "{}", printed.stderr);
    let edge = Arc::new(Edge::launch(home));
    let mut wrong = Vec::new();
    let (local, mut looks) = (LocalSet::new(), JoinSet::new());
    for form in FORMS {
        if !printed.stdout.contains(&format!("upstreams.{}.workers: preset ", form.name))
            || !printed.stdout.contains(form.command)
        {
            wrong.push(format!("{}: check prints {}", form.name, printed.stdout));
        }
        let edge = Arc::clone(&edge);
        let look = async move { look(&edge, form).await.map_err(|problem| format!("{}: {problem}", form.name)) };
        looks.spawn_local_on(look, &local);
    }
    while let Some(looked) = local.run_until(looks.join_next()).await {
        wrong.extend(looked.expect("no panic").err());
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), edge.output().both());
    let log = edge.output().both();
    assert_eq!(log.matches("preset of workers").count(), FORMS.len(), "{log}");
}

/// The process of its worker, once that is ready.
async fn ready_worker(edge: &Edge, form: &Form) -> i64 {
    wait_until(form.name, LIMIT, async || {
        let status = edge.admin().status().await.ok()?;
        let upstream = status["upstreams"].as_array()?.iter().find(|one| one["name"] == form.name)?.clone();
        let worker = upstream["workers"].as_array()?.iter().find(|worker| worker["state"] == "ready")?.clone();
        worker["pid"].as_i64()
    })
    .await
}

async fn look(edge: &Edge, form: &Form) -> Result<(), String> {
    let pid = ready_worker(edge, form).await;
    let started = Instant::now();
    let facts = ask(edge.client(Kind::Http1), form.name).await?.json();
    if started.elapsed() > BOOT_DELAY / 2 {
        return Err(format!("its first answer took {:?} although it was ready", started.elapsed()));
    }
    if facts["body"] != "hi" || ![&facts["pid"], &facts["parent"]].contains(&&pid.into()) {
        return Err(format!("worker {pid} answers {facts}"));
    }
    if form.knows_client && facts["client"] != "127.0.0.1" {
        return Err(format!("the client is {}", facts["client"]));
    }
    let pid = i32::try_from(pid).map_err(|error| error.to_string())?;
    if is_alive(pid) { Ok(()) } else { Err("its worker has ended".to_owned()) }
}

// Once: it is about idle connections to workers.
// Once: it is about processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_program_forks_a_pool_of_its_own() {
    let bin = python::program("python").parent().expect("a file has a folder").display().to_string();
    let gunicorn = "command: [\"@bin@/gunicorn\", --no-control-socket, --bind, \"unix:{socket}\", \"wsgi:app\"]";
    let site = Site::usual(
        "- { path: /, proxy: uvicorn }",
        &format!(
            "uvicorn: {{ workers: {{ preset: uvicorn, command: [\"@bin@/uvicorn\"], app: \"asgi:app\", count: 3, cwd: \"@apps@\" }} }}\n\
             gunicorn: {{ workers: {{ {gunicorn}, count: 2, cwd: \"@apps@\" }} }}\n"
        ),
    );
    let home = Home::new(&site.with("bin", bin).with("apps", python::preset_apps().display()));
    let edge = Edge::launch_with_environment(home, &[("WEB_CONCURRENCY", "8")]).ready().await;
    edge.ready_workers("uvicorn", 3).await;
    edge.ready_workers("gunicorn", 2).await;
    // gunicorn has a parent for its one worker, and forks when it already takes connections.
    let count = || {
        let living = edge.living();
        ["/uvicorn ", "/gunicorn "].map(|name| living.values().filter(|command| command.contains(name)).count())
    };
    wait_for("a worker of each gunicorn", LIMIT, || (count() == [3, 4]).then_some(())).await;
    let more = wait_blocking(Duration::from_secs(1), || Some(count()).filter(|now| *now != [3, 4]));
    assert_eq!(more, None, "{:#?}", edge.living());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_lose_no_request() {
    let around = [500, 950, 1_050, 1_500, 1_990, 2_000, 2_010, 2_500, 3_500];
    race(&site(true, ""), move |_, turn, _| around.get(turn).map(|ms| Duration::from_millis(*ms))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn idle_connections_lose_none_of_many_requests() {
    let (seed, requests) = (seed(), amount("TIDEGATE_DRILL_IDLES", 1_000));
    say(format_args!("seed {seed}"));
    let pause = move |form: &Form, turn: usize, random: &mut Random| {
        // Half of them close to the moment.
        let spread = if random.chance(50) { 20 } else { 1_500 };
        (turn < requests.div_ceil(form.clients()))
            .then(|| Duration::from_millis(random.within(2_000 - spread..2_000 + spread) as u64))
    };
    race(&site(true, ""), pause).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn idle_connections_of_usual_length_lose_no_request() {
    let around = [-1_500_i64, -500, -5, 0, 5, 500, 1_500];
    let pause = move |form: &Form, turn: usize, _: &mut Random| {
        let most = form.keep_alive * 1_000;
        around.get(turn).map(|ms| Duration::from_millis(most.saturating_add_signed(*ms)))
    };
    race(&site(false, ""), pause).await;
}

/// As many clients as a worker takes at a time, each with one request after each pause.
async fn race(site: &Site, pause: impl Fn(&Form, usize, &mut Random) -> Option<Duration> + Copy + Send + 'static) {
    let edge = Edge::launch(Home::new(site));
    let seed = seed();
    let mut clients = JoinSet::new();
    for form in FORMS {
        ready_worker(&edge, form).await;
        for index in 0..form.clients() {
            let client = edge.client(Kind::Http1);
            clients.spawn(async move {
                let mut random = Random::of(seed, index as u64);
                let (mut sent, mut lost) = (0, Vec::new());
                for turn in 0.. {
                    sent += 1;
                    lost.extend(ask(client, form.name).await.err().map(|error| format!("{}: {error}", form.name)));
                    let Some(pause) = pause(form, turn, &mut random) else { break };
                    // The pause is what is tested; a little different for each, for the moment is a short one.
                    sleep(pause + Duration::from_micros(300 * index as u64)).await;
                }
                (sent, lost)
            });
        }
    }
    let (mut all, mut lost) = (0, Vec::new());
    while let Some(ended) = clients.join_next().await {
        let (sent, errors) = ended.expect("no panic");
        all += sent;
        lost.extend(errors);
    }
    say(format_args!("{all} requests after pauses, {} lost", lost.len()));
    assert!(lost.is_empty(), "{} of {all} lost: {:#?}", lost.len(), &lost[..lost.len().min(10)]);
}
