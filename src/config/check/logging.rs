//! Does it make sense what is logged, and where?

use super::Check;
use super::files::given;
use crate::config::file::{self, Map, Marked, PathOr, SecretText};
use crate::config::problem::Spot;
use crate::config::{AccessLog, HttpUrl, Log, Login, Loki, Rotate, Secret, Usage, UsageHttp};

/// Where Loki takes lines.
const PUSH: &str = "/loki/api/v1/push";

/// Files that are renamed whenever one is put aside.
const MOST_KEPT: u32 = 1000;

/// As many labels as Loki takes.
const MOST_LABELS: usize = 15;

/// A request of more lines than this is one that no server takes.
const LARGEST_BATCH: u32 = 100_000;

impl Check<'_> {
    pub(super) fn log(&mut self, log: &file::Log) -> Log {
        let access = match &log.access.value {
            PathOr::None => AccessLog::None,
            PathOr::Stdout => AccessLog::Stdout,
            PathOr::Path(path) => AccessLog::File(self.files.joined(path)),
        };
        let rotate = given(&log.rotate).map(|rotate| {
            if !matches!(access, AccessLog::File(_)) {
                let help = "give `log.access` a path, or leave `rotate` out";
                self.problems.error(&rotate.at, "there is no file that could be put aside", help);
            }
            self.rotate(&rotate)
        });
        Log {
            level: *log.level,
            form: log.format.value.clone(),
            rotate,
            usage: given(&log.usage).and_then(|usage| self.usage(&usage)),
            loki: given(&log.loki).and_then(|loki| self.loki(&loki)),
            dashboard: *log.dashboard,
            access,
        }
    }

    fn rotate(&mut self, rotate: &file::Rotate) -> Rotate {
        if rotate.keep.get() > MOST_KEPT {
            let what = format!("each of {} files would be renamed each time", rotate.keep.get());
            self.problems.error(&rotate.keep.at, what, format!("keep {MOST_KEPT} at most, and larger ones"));
        }
        Rotate { size: rotate.size.0, keep: rotate.keep.get() }
    }

    fn usage(&mut self, usage: &Marked<file::Usage>) -> Option<Usage> {
        let help = "name one of `file` and `http`";
        match (given(&usage.file), given(&usage.http)) {
            (Some(_), Some(http)) => {
                self.problems.error(&http.at, "usage events go to one place only", help);
                None
            }
            (None, None) => {
                if !self.problems.speak_of(&usage.at.key) {
                    self.problems.error(&usage.at, "it does not say where usage events go", help);
                }
                None
            }
            (Some(path), None) => {
                self.only_with_http(usage);
                let rotate = given(&usage.rotate).map(|rotate| self.rotate(&rotate));
                Some(Usage::File(self.files.joined(&path), rotate))
            }
            (None, Some(url)) => self.usage_http(usage, &url).map(Usage::Http),
        }
    }

    /// A key that would do nothing is a misunderstanding.
    fn only_with_http(&mut self, usage: &file::Usage) {
        let written = [
            (usage.spool.written, &usage.spool.at),
            (usage.spool_size.written, &usage.spool_size.at),
            (usage.token.written, &usage.token.at),
            (usage.ca.written, &usage.ca.at),
            (usage.batch.written, &usage.batch.at),
            (usage.interval.written, &usage.interval.at),
        ];
        for (_, at) in written.into_iter().filter(|(written, _)| *written) {
            self.problems.error(at, "nothing is sent that this could be about", "it belongs to `http`: leave it out");
        }
    }

    fn usage_http(&mut self, usage: &Marked<file::Usage>, url: &Marked<HttpUrl>) -> Option<UsageHttp> {
        if usage.rotate.written {
            let help = "it belongs to `file`: leave it out";
            self.problems.error(&usage.rotate.at, "there is no file that could be put aside", help);
        }
        let token = self.login_secret(usage.token.value.as_ref(), &usage.token.at);
        let ca = self.believed(&usage.ca, url);
        self.tell_of_open_ways(&url.value, &url.at, token.is_some());
        self.batch(*usage.batch, &usage.batch.at);
        let Some(spool) = given(&usage.spool) else {
            let help = "add `spool: DIR`; events wait there until they have arrived, also over a crash";
            self.problems.error(&usage.at, "there is no place where events could wait", help);
            return None;
        };
        Some(UsageHttp {
            url: url.value.clone(),
            spool: self.files.kept_in(&spool, self.problems),
            spool_size: usage.spool_size.0,
            token,
            ca,
            batch: usage.batch.get() as usize,
            interval: usage.interval.0,
        })
    }

    fn loki(&mut self, loki: &Marked<file::Loki>) -> Option<Loki> {
        let mut url = loki.url.value.clone();
        if url.path == "/" {
            PUSH.clone_into(&mut url.path);
        }
        let login = match (&loki.token.value, given(&loki.basic)) {
            (Some(_), Some(basic)) => {
                self.problems.error(&basic.at, "there is a token already", "keep one of `token` and `basic`");
                None
            }
            (Some(token), None) => self.login_secret(Some(token), &loki.token.at).map(Login::Bearer),
            (None, Some(basic)) => {
                if basic.user.contains(':') {
                    self.problems.error(&basic.user.at, "a name ends at its first colon", "take a name without one");
                }
                let password = self.secret_bytes(&basic.password.value, &basic.password.at);
                password.map(|bytes| Login::Basic { user: basic.user.value.clone(), password: Secret::new(&bytes) })
            }
            (None, None) => None,
        };
        self.tell_of_open_ways(&url, &loki.url.at, login.is_some());
        self.batch(*loki.batch, &loki.batch.at);
        let tenant = loki.tenant.value.clone();
        if tenant
            .as_ref()
            .is_some_and(|tenant| tenant.is_empty() || !tenant.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            self.problems.error(&loki.tenant.at, "this is no name of a tenant", "write visible letters of ASCII");
        }
        Some(Loki {
            url,
            labels: self.labels(&loki.labels),
            tenant,
            login,
            ca: self.believed(&loki.ca, &loki.url),
            batch: loki.batch.get() as usize,
            interval: loki.interval.0,
        })
    }

    /// Labels choose streams, so all of them are the same for each line; what differs is in the line.
    fn labels(&mut self, labels: &Marked<Map<String>>) -> Vec<(String, String)> {
        let is_name = |name: &str| {
            let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
            name.bytes().next().is_some_and(letter) && name.bytes().all(|byte| letter(byte) || byte.is_ascii_digit())
        };
        for label in labels.0.iter().filter(|label| !is_name(&label.name)) {
            let what = format!("`{}` is no name of a label", label.name);
            self.problems.error(&label.at, what, "write letters, digits and `_`, and no digit first");
        }
        if labels.0.len() > MOST_LABELS {
            let what = format!("there are {} labels, and Loki takes {MOST_LABELS}", labels.0.len());
            self.problems.error(&labels.at, what, "what tells lines apart is in the lines");
        }
        let given: Vec<_> = labels.0.iter().filter_map(|it| Some((it.name.clone(), it.value.clone()?))).collect();
        if given.is_empty() { vec![("job".to_owned(), "portcullis".to_owned())] } else { given }
    }

    fn batch(&mut self, batch: std::num::NonZeroU32, at: &Spot) {
        if batch.get() > LARGEST_BATCH {
            let what = format!("a request of more than {LARGEST_BATCH} lines is one that nobody takes");
            self.problems.error(at, what, "1000 suits most");
        }
    }

    /// The authorities for this URL.
    pub(super) fn believed(
        &mut self,
        ca: &Marked<Option<file::FilePath>>,
        url: &HttpUrl,
    ) -> Option<std::path::PathBuf> {
        let ca = given(ca)?;
        if !url.tls {
            self.problems.error(&ca.at, "over http nothing is verified", "use https, or leave `ca` out");
        }
        Some(self.files.authorities(&ca, self.problems))
    }

    fn tell_of_open_ways(&mut self, url: &HttpUrl, at: &Spot, shows_a_secret: bool) {
        if shows_a_secret && !url.tls && !url.is_loopback() {
            self.problems.warning(at, "whoever is on the way to this URL can read the secret", "use https");
        }
    }

    /// A secret that others have chosen, and that may be as short as they like.
    fn login_secret(&mut self, secret: Option<&SecretText>, at: &Spot) -> Option<Secret> {
        let bytes = self.secret_bytes(secret?, at)?;
        if bytes.is_empty() || !bytes.iter().all(|byte| byte.is_ascii_graphic()) {
            self.problems.error(at, "this secret cannot be shown in a field", "it is made of visible letters of ASCII");
            return None;
        }
        Some(Secret::new(&bytes))
    }
}
