//! The servers are what they say: they keep what they must, and end when they should.

use crate::{Cluster, Durability};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Set for the process that is to be killed.
const VICTIM: &str = "MILLSTREAM_TEST_POSTGRES_VICTIM";
const LIMIT: Duration = Duration::from_secs(30);

async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().unwrap();
    options.connect().await.unwrap()
}

async fn count(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM kept")
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_was_committed_outlives_a_stop_and_a_kill() {
    let cluster = Cluster::start(Durability::Disk).await;
    let url = cluster.database().await;
    let mut connection = connect(&url).await;
    sqlx::raw_sql("CREATE TABLE kept (x int); INSERT INTO kept VALUES (1)")
        .execute(&mut connection)
        .await
        .unwrap();
    cluster.restart().await;
    connection.ping().await.unwrap_err();
    let mut connection = connect(&url).await;
    assert_eq!(count(&mut connection).await, 1);

    sqlx::raw_sql("INSERT INTO kept VALUES (2)")
        .execute(&mut connection)
        .await
        .unwrap();
    let before = cluster.postmaster();
    cluster.kill().await;
    assert!(!Path::new(&format!("/proc/{before}")).exists());
    connection.ping().await.unwrap_err();
    cluster.start_again().await;
    assert_ne!(cluster.postmaster(), before);
    assert_eq!(count(&mut connect(&url).await).await, 2);
}

#[tokio::test]
async fn a_paused_server_answers_nobody_until_it_goes_on() {
    let cluster = Cluster::start(Durability::System).await;
    let mut connection = connect(&cluster.url()).await;
    cluster.pause().await;
    let answer = connection.ping();
    tokio::pin!(answer);
    tokio::time::timeout(Duration::from_millis(200), &mut answer)
        .await
        .unwrap_err();
    cluster.resume().await;
    answer.await.unwrap();
    connect(&cluster.url()).await;

    // One that is paused can be ended all the same.
    cluster.pause().await;
    cluster.stop().await;
    cluster.start_again().await;
    cluster.pause().await;
}

#[tokio::test]
async fn databases_of_the_shared_cluster_are_apart() {
    let cluster = Cluster::shared().await;
    let (one, other) = (cluster.database().await, cluster.database().await);
    for url in [&one, &other] {
        sqlx::raw_sql("CREATE TABLE kept (x int)")
            .execute(&mut connect(url).await)
            .await
            .unwrap();
    }
    assert_eq!(count(&mut connect(&one).await).await, 0);
}

#[tokio::test]
#[should_panic(expected = "Address already in use")]
async fn a_server_that_does_not_start_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    Cluster::on(port, Durability::System);
}

/// Goal: no server is left when the tests' process is killed, even a paused one. Method: this program again, which starts a
/// cluster and is killed.
#[tokio::test]
async fn no_server_outlives_a_killed_test() {
    if let Ok(state) = std::env::var(VICTIM) {
        let cluster = Cluster::start(Durability::System).await;
        if state == "paused" {
            cluster.pause().await;
        }
        println!("\nserver {}", cluster.postmaster());
        std::future::pending::<()>().await;
    }
    for state in ["running", "paused"] {
        let name = "tests::no_server_outlives_a_killed_test";
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(VICTIM, state)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(victim.stdout.take().unwrap());
        let server = said
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("server ")?.to_owned()))
            .expect("the victim names its server");
        let process = format!("/proc/{server}");
        let folder = std::fs::read_link(format!("{process}/cwd")).unwrap();
        assert!(folder.join("postmaster.pid").exists(), "{folder:?}");
        victim.kill().unwrap();
        victim.wait().unwrap();
        let gone = async {
            while Path::new(&process).exists() || folder.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, gone)
            .await
            .unwrap_or_else(|_| panic!("server {server} of a killed test still runs ({state})"));
    }
}
