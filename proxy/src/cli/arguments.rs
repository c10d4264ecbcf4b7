//! The shape of the command line. What the words mean is decided in the siblings.

mod deploy;
mod workers;

use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

pub(super) use deploy::Deploy;
pub(super) use workers::{Drain, Events, Logs, Restart, Scale, Wait, Whose, Workers};

/// Edge proxy, load balancer and worker supervisor in one binary.
#[derive(Debug, Parser)]
#[command(name = "tidegate", disable_version_flag = true, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommand>,
    /// Check the configuration and exit, as `check`
    #[arg(short = 't')]
    test: bool,
    /// Print the version and exit
    #[arg(short = 'v', short_alias = 'V', long = "version")]
    version: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// Which site file.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ConfigFile {
    /// Site file; `-` is standard input [default: $TIDEGATE_CONFIG, /etc/tidegate/site.yaml, or tidegate/site.yaml in
    /// the user's configuration folder]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Run in the foreground
    Run(Run),
    /// Check the configuration and what it names, and exit
    #[command(visible_aliases = ["validate", "test"])]
    Check(Check),
    /// Print the JSON schema of the site file
    Schema,
    /// Make the running program read its configuration again
    Reload(Reload),
    /// Show what the running program does
    Status(Status),
    /// Stop the running program gracefully
    Stop(Stop),
    /// Show the workers of the running program
    Workers(Workers),
    /// Replace workers by new ones, each before the old one leaves
    Restart(Restart),
    /// Let a worker finish its requests and stop it; its slot stays empty until `restart`
    Drain(Drain),
    /// Change the number of workers
    Scale(Scale),
    /// Replace all workers by a new generation, which proves itself first
    Deploy(Deploy),
    /// Show what happened to workers
    Events(Events),
    /// Show what workers print
    Logs(Logs),
    /// Serve a command's workers without a site file
    Serve(Serve),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completion(Completion),
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) config: ConfigFile,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// How to print what is wrong
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    /// Print every file of the configuration too
    #[arg(long, short = 'T')]
    pub(super) print: bool,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// How the running program is found.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Endpoint {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Address of the admin endpoint (`unix:/path`, `127.0.0.1:9000`) instead of the site file's
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin: Option<String>,
    /// File with the admin token instead of the site file's
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    pub(super) endpoint: Endpoint,
    /// How to print what changes
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    /// Seconds to wait for the result
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(super) timeout: u64,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    pub(super) endpoint: Endpoint,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
}

#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    pub(super) endpoint: Endpoint,
    /// Seconds to wait for the end
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(super) timeout: u64,
    /// Return once the shutdown has begun
    #[arg(long)]
    pub(super) no_wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Host name to answer on, over TLS with a certificate of the local CA; may be repeated
    #[arg(long = "domain", value_name = "NAME")]
    pub(super) domains: Vec<String>,
    /// Address to listen on [default: :8443 with --domain, else 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
    /// Number of workers [default: one per CPU, at least 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) workers: Option<u32>,
    /// Address of the admin endpoint [default: the account's own socket]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin: Option<String>,
    /// Program and arguments of a worker; {socket} or {port} stands for where it listens
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Completion {
    /// Which shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

impl Arguments {
    /// What is asked for; nginx's switches are commands too. `None` when nothing is.
    pub(super) fn into_subcommand(self) -> Result<Option<Subcommand>, String> {
        let Self { command, test, version, config } = self;
        match (command, test, version) {
            (None, false, true) => Ok(Some(Subcommand::Version)),
            (None, true, false) => {
                Ok(Some(Subcommand::Check(Check { config, format: OutputFormat::Text, print: false })))
            }
            (None, false, false) => Ok(None),
            (Some(command), false, false) => Ok(Some(command.or_config(config))),
            (_, true, _) => Err("-t is a command of its own; leave the other one out".to_owned()),
            (Some(_), false, true) => Err("--version is a command of its own; leave the other one out".to_owned()),
        }
    }
}

impl Subcommand {
    /// `tidegate -c FILE run` is `tidegate run -c FILE`.
    fn or_config(mut self, outer: ConfigFile) -> Self {
        let own = match &mut self {
            Self::Run(run) => &mut run.config,
            Self::Check(check) => &mut check.config,
            Self::Reload(reload) => &mut reload.endpoint.config,
            Self::Status(status) => &mut status.endpoint.config,
            Self::Stop(stop) => &mut stop.endpoint.config,
            Self::Workers(workers) => &mut workers.endpoint.config,
            Self::Restart(restart) => &mut restart.endpoint.config,
            Self::Drain(drain) => &mut drain.endpoint.config,
            Self::Scale(scale) => &mut scale.endpoint.config,
            Self::Deploy(deploy) => &mut deploy.endpoint.config,
            Self::Events(events) => &mut events.endpoint.config,
            Self::Logs(logs) => &mut logs.endpoint.config,
            Self::Schema | Self::Serve(_) | Self::Version | Self::Completion(_) => return self,
        };
        own.config = own.config.take().or(outer.config);
        self
    }
}
