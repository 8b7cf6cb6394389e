//! What is shipped for machines, containers and clusters: configurations that hold, commands that there are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Portcullis;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap()
}

fn check(file: &Path) {
    let output = Portcullis::output(&["check", "-c", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    assert_eq!(
        (output.status.code(), said.trim_end().ends_with(": ok")),
        (Some(0), true),
        "{}: {said}",
        file.display()
    );
}

#[test]
fn every_configuration_that_is_installed_is_a_good_one_without_warnings() {
    for file in ["docker/portcullis.yaml", "debian/portcullis.yaml", "compose/portcullis.yaml"] {
        check(&deploy(file));
    }
}

#[test]
fn the_configuration_in_the_manifests_is_a_good_one() {
    let manifest = read("kubernetes/portcullis.yaml");
    let (_, after) = manifest.split_once("portcullis.yaml: |\n").unwrap();
    let (inside, _) = after.split_once("\n---").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a token of more than 16 bytes").unwrap();
    let yaml: String = inside.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let file = folder.path().join("portcullis.yaml");
    std::fs::write(&file, yaml.replace("/etc/portcullis/secret/token", token.to_str().unwrap())).unwrap();
    check(&file);
}

#[test]
fn units_images_and_scripts_call_commands_that_there_are() {
    let help = String::from_utf8(Portcullis::output(&["--help"]).stdout).unwrap();
    let called = ["run", "check", "upgrade", "completions", "man"];
    assert!(called.iter().all(|command| help.contains(&format!("\n  {command} "))), "{help}");
    assert!(read("systemd/portcullis.service").contains("ExecStart=/usr/bin/portcullis run -c "));
    assert!(read("docker/Dockerfile").contains("CMD [\"run\", \"-c\", "));
    assert!(read("debian/postinst").contains("portcullis upgrade -c "));
}

/// Where it is installed: `promtool` comes with Debian's package `prometheus`.
#[test]
fn alerts_speak_when_they_should_and_not_otherwise() {
    let test =
        Command::new("promtool").args(["test", "rules", "alerts_test.yml"]).current_dir(deploy("compose")).output();
    let Ok(output) = test else { return };
    let said = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
}
