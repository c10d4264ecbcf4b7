//! Finds the site file.

use std::path::{Path, PathBuf};

use tidegate_config::environment::Environment;

use super::{ConfigSource, Host};

const SYSTEM_FILE: &str = "/etc/tidegate/site.yaml";

/// The configuration asked for, else that of `$TIDEGATE_CONFIG`, else the first default file there is.
pub(super) fn source(asked: Option<&Path>, host: &Host<'_>) -> Result<ConfigSource, String> {
    if asked == Some(Path::new("-")) {
        let text = (host.standard_input)().map_err(|error| format!("standard input cannot be read: {error}"))?;
        return Ok(ConfigSource::Text { name: "standard input".to_owned(), text });
    }
    if let Some(path) = asked {
        return Ok(ConfigSource::File(path.to_owned()));
    }
    if let Some(path) = variable(host.environment, "TIDEGATE_CONFIG") {
        return Ok(ConfigSource::File(path.into()));
    }
    let defaults = default_files(host.environment);
    if let Some(path) = defaults.iter().find(|path| path.exists()) {
        return Ok(ConfigSource::File(path.clone()));
    }
    let tried: Vec<String> = defaults.iter().map(|path| path.display().to_string()).collect();
    Err(format!(
        "there is no site file: neither -c FILE nor $TIDEGATE_CONFIG is given, nor is there {}",
        tried.join(" or ")
    ))
}

fn default_files(environment: &dyn Environment) -> Vec<PathBuf> {
    let user = variable(environment, "XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable(environment, "HOME").map(|home| Path::new(&home).join(".config")));
    let user = user.filter(|folder| folder.is_absolute()).map(|folder| folder.join("tidegate/site.yaml"));
    [Some(PathBuf::from(SYSTEM_FILE)), user].into_iter().flatten().collect()
}

fn variable(environment: &dyn Environment, name: &str) -> Option<String> {
    environment.variable(name).filter(|value| !value.is_empty())
}
