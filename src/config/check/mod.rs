//! Does the file make sense? From the YAML's shape to the checked [`Config`], with every problem gathered.
//!
//! A problem of shape does not keep the rest from being checked; what only follows from another problem is not told.
//! Nothing outside is asked for but through [`Surroundings`].

mod auth;
mod brought;
mod browsers;
mod cache;
mod compress;
mod discover;
mod errors;
mod files;
mod jwt;
mod keys;
mod limits;
mod lint;
mod listener;
mod live;
mod logging;
mod networks;
mod rate_limit;
mod retry;
mod route;
mod tracing;
mod upstream;

use std::collections::HashMap;
use std::sync::Arc;

use super::file::{self, Decode, File};
use super::problem::{Problem, Problems, Spot};
use super::surroundings::Surroundings;
use super::{Address, Config, Outline, Reload, Secret, Server, expand, tree};
use files::Files;

pub(super) use upstream::check_backend;

/// The system's structure for a socket's path holds 108 bytes, the last of which is zero.
const MAX_SOCKET_PATH: usize = 107;

/// Names are written into every line of a log and every table.
const MAX_NAME: usize = 300;

/// A configuration that can be run.
#[derive(Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// What is probably not meant as it is written.
    pub warnings: Vec<Problem>,
    /// What it says, for whoever tells what has changed.
    pub outline: Outline,
}

/// Reads the text of a configuration. `file` is its name in problems.
pub fn parse(text: &str, file: &str, around: &Surroundings) -> Result<Checked, Vec<Problem>> {
    let mut problems = Problems::of(file);
    let config = read(text, around, &mut problems);
    let (errors, warnings) = problems.into_parts();
    match config {
        Some((config, outline)) if errors.is_empty() => Ok(Checked { config, warnings, outline }),
        Some(_) | None => Err(errors),
    }
}

/// The JSON Schema of the language, for editors.
pub fn schema() -> String {
    let mut schema = File::schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Portcullis configuration".into();
    format!("{schema:#}\n")
}

/// Every key of the language, such as `listeners[].tls.certificates[].cert` and `upstreams.NAME.balance`.
pub fn known_keys() -> Vec<String> {
    let mut keys = Vec::new();
    File::keys("", &mut keys);
    keys
}

fn read(text: &str, around: &Surroundings, problems: &mut Problems) -> Option<(Config, Outline)> {
    let mut root = tree::parse(text, problems)?;
    let outline = Outline(File::spell(&root));
    expand::expand(&mut root, &*around.environment, problems);
    let file = File::decode(&root, &Spot::root(root.mark), problems)?;
    let config = Check { files: Files::of(around), around, problems }.config(&file);
    let secrets = [("server", "secret", &config.server.secret), ("admin", "token", &config.admin_token)];
    let outline = secrets.into_iter().fold(outline, |outline, (section, key, secret)| match secret {
        Some(secret) => outline.with_secret(section, key, secret.clone()),
        None => outline,
    });
    Some((Config { outline: Arc::new(outline.clone()), ..config }, outline))
}

/// A check under way.
struct Check<'a> {
    files: Files<'a>,
    around: &'a Surroundings,
    problems: &'a mut Problems,
}

impl Check<'_> {
    fn config(&mut self, file: &File) -> Config {
        let keys = self.keys(&file.keys, &file.routes);
        let config = Config {
            server: self.server(&file.server),
            listeners: self.listeners(&file.listeners),
            upstreams: self.upstreams(&file.upstreams),
            routes: self.routes(file, &keys),
            keys,
            cache: self.cache_store(&file.cache),
            admin: self.admin(&file.admin, &file.listeners),
            admin_token: file.admin.token.as_ref().and_then(|token| self.secret(token, &file.admin.token.at)),
            log: self.log(&file.log),
            tracing: self.tracing(&file.tracing),
            outline: Arc::default(),
        };
        self.registers(file);
        lint::lint(file, &config, self.around, self.problems);
        config
    }

    fn server(&mut self, server: &file::Server) -> Server {
        Server {
            threads: server.threads.0,
            max_connections: server.max_connections.get(),
            grace_period: *server.grace_period,
            drain_delay: *server.drain_delay,
            trusted_proxies: server.trusted_proxies.iter().map(|net| net.value.trunc()).collect(),
            forwarded_by: *server.forwarded_by,
            secret: server.secret.as_ref().and_then(|secret| self.secret(secret, &server.secret.at)),
            reload: Reload { watch: *server.reload.watch, debounce: *server.reload.debounce },
            retry_buffers: server.retry_buffers.0,
            rate_limits: self.rate_limiting(&server.rate_limits),
            upgrade_socket: server.upgrade_socket.as_ref().map(|path| self.files.joined(path)),
        }
    }

    fn secret(&mut self, secret: &file::SecretText, at: &Spot) -> Option<Secret> {
        let bytes = self.secret_bytes(secret, at)?;
        if bytes.len() < Secret::LEAST {
            let help = "take what `head -c 24 /dev/urandom | base64` writes, and keep it in a file: `file:PATH`";
            let what = format!("a secret of {} bytes can be guessed; it needs {} at least", bytes.len(), Secret::LEAST);
            self.problems.error(at, what, help);
        }
        Some(Secret::new(&bytes))
    }

    /// What stands there, or in the file that it names.
    fn secret_bytes(&mut self, secret: &file::SecretText, at: &Spot) -> Option<Vec<u8>> {
        let bytes = match secret {
            file::SecretText::Text(text) => text.clone().into_bytes(),
            file::SecretText::File(path) => {
                let path = file::Marked { value: path.clone(), at: at.clone(), written: true };
                self.files.contents(&path, self.problems)?
            }
        };
        Some(bytes.trim_ascii().to_vec())
    }

    fn admin(&mut self, admin: &file::Admin, listeners: &[file::Marked<file::Listener>]) -> Option<Address> {
        let address = (*admin.address).clone()?;
        let at = &admin.address.at;
        if let Address::Tcp(socket) = address
            && !socket.ip().is_loopback()
            && admin.token.is_none()
        {
            let help = "give `admin.token` a secret, best with `file:PATH`, or use 127.0.0.1, [::1] or a unix socket";
            self.problems.error(at, format!("`{socket}` can be reached from other machines, and wants no token"), help);
        }
        let address = self.address(&address, at);
        let taken = listeners
            .iter()
            .find(|listener| listener::overlap(&self.files.joined_address(&listener.address), &address));
        if let Some(listener) = taken {
            let what = format!("this address is also that of {}", listener.at.key);
            self.problems.error(at, what, "choose another port, or `none` to do without");
        }
        Some(address)
    }

    /// The address with its path joined, which must not be longer than a socket's may be.
    fn address(&mut self, address: &Address, at: &Spot) -> Address {
        let joined = self.files.joined_address(address);
        if let Address::Unix(path) = &joined
            && path.as_os_str().len() > MAX_SOCKET_PATH
        {
            let what = format!("the path of this socket has more than {MAX_SOCKET_PATH} bytes: {}", path.display());
            self.problems.error(at, what, "choose a shorter one, such as unix:/run/portcullis.sock");
        }
        joined
    }
}

/// Whether a name can be told from others in a log.
pub(super) fn is_a_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

/// Finds names that are given twice.
#[derive(Default)]
struct Names {
    seen: HashMap<String, Spot>,
}

impl Names {
    /// Tells if this name was given before, or could not be told from others in a log.
    fn claim(&mut self, name: &str, at: &Spot, what: &str, problems: &mut Problems) {
        if !is_a_name(name) {
            let what = format!("{what} has a name that is empty, too long or not visible");
            problems.error(at, what, format!("choose a name of 1 to {MAX_NAME} visible letters"));
        }
        if let Some(first) = self.seen.insert(name.to_owned(), at.clone()) {
            let what = format!("{what} `{name}` is already at line {} ({})", first.mark.line, first.key);
            problems.error(at, what, "names are unique: choose another one");
        }
    }
}
