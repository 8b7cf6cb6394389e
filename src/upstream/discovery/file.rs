//! Which backends does a watched file name? A list in YAML or JSON.
//!
//! It is looked at four times a second, as every other way fails on some file system. A file that is being written is
//! read when it has been the same at two looks; whoever replaces it by renaming another one to its name is safe from
//! half a list altogether.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::fs;
use tokio::time::sleep;

use super::{Discovery, Failure, Found};
use crate::config::members::{Rules, members};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// A longer file is no list of backends.
const LONGEST: u64 = 8 << 20;

/// Clocks of file systems are coarse: a file that changed this recently is read again, whatever its times say.
const COARSE: u64 = 2;

/// A file with a list of backends.
#[derive(Debug)]
pub struct ListFile {
    path: PathBuf,
    https_by_address: bool,
    mark: Option<Mark>,
    /// What the last look has read.
    seen: Option<Result<String, String>>,
    /// What has been told.
    told: Option<Result<String, String>>,
}

/// Where the file is and when it changed: all that the system says for free.
type Mark = (u64, u64, i64, i64, i64);

impl ListFile {
    /// The file at this path.
    pub fn new(path: PathBuf, rules: Rules<'_>) -> Self {
        Self { path, https_by_address: rules.https_by_address, mark: None, seen: None, told: None }
    }

    /// What is in it, once that is new and the same at two looks. The first look of all is believed at once.
    async fn changed(&mut self) -> Result<String, String> {
        let first = self.seen.is_none();
        loop {
            if !first {
                sleep(LOOK).await;
            }
            let mark = fs::metadata(&self.path)
                .await
                .ok()
                .map(|it| (it.dev(), it.ino(), it.size().cast_signed(), it.ctime(), it.ctime_nsec()));
            let still = !first && mark == self.mark && !is_fresh(mark) && self.seen == self.told;
            self.mark = mark;
            if still {
                continue;
            }
            let now = read(&self.path).await;
            let settled = first || self.seen.as_ref() == Some(&now);
            self.seen = Some(now.clone());
            if settled && self.told != self.seen {
                self.told.clone_from(&self.seen);
                return now;
            }
        }
    }
}

#[async_trait]
impl Discovery for ListFile {
    async fn next(&mut self) -> Result<Found, Failure> {
        let text = self.changed().await;
        let name = self.path.display();
        let rules = Rules { https_by_address: self.https_by_address, folder: self.path.parent() };
        let members = text.and_then(|text| members(&text, rules));
        members.map(Found::from).map_err(|why| Failure(format!("{name}: {why}")))
    }
}

fn is_fresh(mark: Option<Mark>) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // A time in the future, as on a drive with another clock, is fresh too.
    mark.is_some_and(|(.., changed, _)| now.saturating_sub(u64::try_from(changed).unwrap_or_default()) <= COARSE)
}

async fn read(path: &Path) -> Result<String, String> {
    let length = fs::metadata(path).await.map_err(|error| error.to_string())?.len();
    if length > LONGEST {
        return Err(format!("it has {length} bytes; a list of backends is shorter"));
    }
    fs::read_to_string(path).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_file(path: &Path) -> ListFile {
        ListFile::new(path.to_owned(), Rules { https_by_address: false, folder: None })
    }

    async fn names(file: &mut ListFile) -> Result<Vec<String>, Failure> {
        let found = file.next().await?;
        Ok(found.members.backends.iter().map(|backend| backend.name.to_string()).collect())
    }

    #[tokio::test]
    async fn a_file_is_read_at_once_and_again_when_it_says_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let mut file = list_file(&path);
        assert!(names(&mut file).await.unwrap_err().0.contains("No such file"));
        std::fs::write(&path, "[10.0.0.1:80]").unwrap();
        assert_eq!(names(&mut file).await.unwrap(), ["10.0.0.1:80"]);
        std::fs::write(&path, "[10.0.0.2:80]").unwrap();
        assert_eq!(names(&mut file).await.unwrap(), ["10.0.0.2:80"]);
        std::fs::remove_file(&path).unwrap();
        assert!(names(&mut file).await.is_err());
        std::fs::write(&path, "[unix:a.sock]").unwrap();
        assert_eq!(names(&mut file).await.unwrap(), ["unix:a.sock"]);
    }

    #[tokio::test]
    async fn a_file_without_an_end_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::File::create(&path).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(names(&mut list_file(&path)).await.unwrap_err().0.contains("shorter"));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(names(&mut list_file(&path)).await.unwrap_err().0.contains("UTF-8"));
    }
}
