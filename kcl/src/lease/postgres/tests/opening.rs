//! Databases that are opened, and those that are refused.

use super::*;

async fn refused(url: &str, kind: ErrorKind, words: &[&str]) {
    let error = PostgresLeaseStore::connect(url).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

/// Everything in the schema, with the rows of the table of versions if there is one: to see that nothing was touched.
async fn content(connection: &mut PgConnection) -> String {
    let objects =
        "SELECT coalesce(string_agg(relname || xmin::text, ' ' ORDER BY relname), '') FROM pg_class
                   WHERE relnamespace = to_regnamespace('millstream')";
    text(connection, objects).await
}

#[tokio::test]
async fn opens_again_what_it_wrote() {
    let url = place().await;
    let store = open(&url).await;
    let worker = join(&store, "w").await;
    store
        .create_leases(APP, &[new_lease("a", &["b", "c"])])
        .await
        .unwrap();
    let taken = store.take(APP, &worker, &[claim("a", 0)]).await.unwrap();
    store
        .checkpoint(APP, &token(&taken[0]), &at(5))
        .await
        .unwrap();
    let before = store.snapshot(APP).await.unwrap();
    drop(store);
    let again = open(&url).await;
    assert_eq!(again.snapshot(APP).await.unwrap(), before);
    again
        .checkpoint(APP, &token(&taken[0]), &at(6))
        .await
        .unwrap();
}

#[tokio::test]
async fn k14_a_schema_of_another_version_is_refused_and_not_touched() {
    for version in ["3", "99", "-1"] {
        let url = place().await;
        let mut raw = outsider(&url).await;
        let sql = format!(
            "CREATE SCHEMA millstream; CREATE TABLE millstream.leases (x int);
             CREATE TABLE millstream.schema_version (version bigint); INSERT INTO millstream.schema_version VALUES ({version})"
        );
        run(&mut raw, &sql).await;
        let before = content(&mut raw).await;
        let words = [
            &format!("found schema version {version}"),
            "expected 2",
            "nothing was touched",
            url.split('@').nth(1).unwrap(),
        ];
        refused(&url, ErrorKind::Store, &words).await;
        assert_eq!(content(&mut raw).await, before);
    }
}

#[tokio::test]
async fn k14_tables_of_another_program_are_not_touched() {
    let versions = "CREATE TABLE millstream.schema_version (version bigint)";
    let cases = [
        ("CREATE TABLE millstream.leases (tenant text)", "found 1"),
        (
            &format!("{versions}; INSERT INTO millstream.schema_version VALUES (1)"),
            "found 0",
        ),
        (versions, "not as this version writes it"),
        (
            "CREATE TABLE millstream.schema_version (name text)",
            "not as this version made them",
        ),
    ];
    for (sql, words) in cases {
        let url = place().await;
        let mut raw = outsider(&url).await;
        run(&mut raw, &format!("CREATE SCHEMA millstream; {sql}")).await;
        let before = content(&mut raw).await;
        refused(&url, ErrorKind::Store, &[words]).await;
        assert_eq!(content(&mut raw).await, before);
    }
    // Tables elsewhere, and others in the schema, are good neighbours.
    let url = place().await;
    let mut raw = outsider(&url).await;
    run(
        &mut raw,
        "CREATE TABLE leases (x int); CREATE SCHEMA millstream; CREATE TABLE millstream.mine (x int); INSERT INTO millstream.mine VALUES (1)",
    )
    .await;
    open(&url).await;
    let kept = text(&mut raw, "SELECT x::text FROM millstream.mine").await;
    assert_eq!(kept, "1");
}

#[tokio::test]
async fn k14_an_open_store_notices_that_a_newer_version_has_migrated() {
    let url = place().await;
    let store = open(&url).await;
    let (worker, tokens) = holder(&store, "w", &["a"]).await;
    let newer = "UPDATE millstream.schema_version SET version = 3";
    run(&mut outsider(&url).await, newer).await;
    let pending = crate::lease::PendingCheckpoint {
        position: at(1),
        state: vec![],
    };
    let profile = WorkerProfile::default();
    for error in [
        store
            .heartbeat(APP, &worker, &Loads::new(), &[])
            .await
            .unwrap_err(),
        store.checkpoint(APP, &tokens[0], &at(1)).await.unwrap_err(),
        store.prepare(APP, &tokens[0], &pending).await.unwrap_err(),
        store
            .create_leases(APP, &[new_lease("b", &[])])
            .await
            .map(drop)
            .unwrap_err(),
        store
            .register(APP, "new", &profile)
            .await
            .map(drop)
            .unwrap_err(),
        store
            .take(APP, &worker, &[claim("none", 0)])
            .await
            .map(drop)
            .unwrap_err(),
        store.lease(APP, &key("none")).await.map(drop).unwrap_err(),
        store.snapshot("empty").await.map(drop).unwrap_err(),
        store
            .delete_ended(APP, &[key("none")])
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Store);
        let text = error.to_string();
        assert!(text.contains("found schema version 3"), "{text}");
    }
}

/// Goal: tables of the first version are migrated with what they hold, but not by those who only look. Method: its tables as they were.
#[tokio::test]
async fn k14_tables_of_the_first_version_are_migrated_but_not_by_those_who_only_look() {
    let url = place().await;
    let error = PostgresLeaseStore::connect_existing(&url)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let mut raw = outsider(&url).await;
    run(&mut raw, "CREATE SCHEMA millstream").await;
    run(&mut raw, schema::MIGRATIONS[0]).await;
    run(
        &mut raw,
        "INSERT INTO millstream.leases VALUES ('app', 's', 'a', 'w', 4, '77', NULL, 2, '[]');
         INSERT INTO millstream.workers VALUES ('app', 'w', 5, 6, 's', 1500)",
    )
    .await;
    let before = content(&mut raw).await;
    let error = PostgresLeaseStore::connect_existing(&url)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store, "{error}");
    assert!(
        error.to_string().contains("found schema version 1"),
        "{error}"
    );
    assert_eq!(content(&mut raw).await, before);

    let store = open(&url).await;
    let inspection = store.inspect(APP).await.unwrap();
    let lease = &inspection.snapshot.leases[0];
    assert_eq!(
        (lease.owner.as_deref(), lease.counter, lease.checkpoint),
        (Some("w"), 4, at(77))
    );
    let row = &inspection.snapshot.workers[0];
    assert_eq!(row.profile.failover, Some(Duration::from_millis(1500)));
    let streams = "SELECT streams FROM millstream.workers";
    assert_eq!(text(&mut raw, streams).await, r#"["s"]"#);
    let me = Registration {
        worker_id: "w".to_owned(),
        incarnation: 5,
    };
    store.heartbeat(APP, &me, &Loads::new(), &[]).await.unwrap();
    PostgresLeaseStore::connect_existing(&url).await.unwrap();
}

#[tokio::test]
async fn k14_unknown_columns_tables_and_rows_are_tolerated() {
    let url = place().await;
    let store = open(&url).await;
    join(&store, "early").await;
    run(
        &mut outsider(&url).await,
        "ALTER TABLE millstream.leases ADD COLUMN mood TEXT DEFAULT 'good';
         ALTER TABLE millstream.workers ADD COLUMN host TEXT;
         ALTER TABLE millstream.schema_version ADD COLUMN since TIMESTAMPTZ;
         CREATE TABLE millstream.extra (x int);",
    )
    .await;
    for store in [&store, &open(&url).await] {
        let worker = join(store, "w").await;
        create(store, &["a"]).await;
        let counter = lease(store, "a").await.counter;
        let won = store
            .take(APP, &worker, &[claim("a", counter)])
            .await
            .unwrap();
        store
            .heartbeat(APP, &worker, &Loads::new(), &[])
            .await
            .unwrap();
        store
            .checkpoint(APP, &token(&won[0]), &at(won[0].counter))
            .await
            .unwrap();
    }
}

/// Goal: whatever order a database's own language has, keys are ordered and told apart by their bytes.
#[tokio::test]
async fn texts_compare_by_bytes() {
    let url = place().await;
    open(&url).await;
    let others = "SELECT coalesce(string_agg(attname, ' '), '') FROM pg_attribute
                  WHERE attrelid IN ('millstream.leases'::regclass, 'millstream.workers'::regclass)
                        AND attcollation NOT IN (0, 'pg_catalog.\"C\"'::regcollation)
                        AND atttypid = 'text'::regtype";
    assert_eq!(text(&mut outsider(&url).await, others).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_processes_may_create_the_tables_at_once() {
    for _ in 0..3 {
        let url = place().await;
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..12 {
            let url = url.clone();
            tasks.spawn(async move {
                let store = PostgresLeaseStore::connect(&url).await?;
                let profile = WorkerProfile::default();
                store.register(APP, &format!("w{index}"), &profile).await
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap().unwrap();
        }
        let store = open(&url).await;
        assert_eq!(store.snapshot(APP).await.unwrap().workers.len(), 12);
    }
}

#[tokio::test]
async fn what_cannot_be_opened_says_what_to_do() {
    let url = place().await;
    let secret = "postgres://me:hush@127.0.0.1:notaport/db";
    refused(
        secret,
        ErrorKind::Configuration,
        &["postgres://user:password"],
    )
    .await;
    let error = PostgresLeaseStore::connect(secret).await.unwrap_err();
    assert!(!error.to_string().contains("hush"), "{error}");

    let nowhere = url.replace("test_", "absent_");
    refused(
        &nowhere,
        ErrorKind::Configuration,
        &["create it", "absent_"],
    )
    .await;
    let nobody = url.replace("postgres@", "stranger@");
    refused(
        &nobody,
        ErrorKind::AccessDenied,
        &["check user and password"],
    )
    .await;
    let encrypted = format!("{url}?sslmode=require");
    refused(&encrypted, ErrorKind::Configuration, &["sslmode"]).await;
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let silent = format!("postgres://postgres@127.0.0.1:{port}/db");
    refused(&silent, ErrorKind::Unavailable, &["out of reach"]).await;
}

#[tokio::test]
async fn a_user_without_rights_is_told_which_are_missing() {
    let url = place().await;
    let mut raw = outsider(&url).await;
    let role = format!("worker_of_{}", url.rsplit('/').next().unwrap());
    run(&mut raw, &format!("CREATE ROLE {role} LOGIN")).await;
    let as_role = url.replace("postgres@", &format!("{role}@"));
    refused(
        &as_role,
        ErrorKind::AccessDenied,
        &["CREATE SCHEMA millstream AUTHORIZATION"],
    )
    .await;
    // What the text says helps.
    run(
        &mut raw,
        &format!("CREATE SCHEMA millstream AUTHORIZATION {role}"),
    )
    .await;
    holder(&open(&as_role).await, "w", &["a"]).await;
}

/// Goal: an answered checkpoint is on the disk even where the database's default is to answer sooner; a stricter default stays.
#[tokio::test]
async fn commits_wait_for_the_disk_whatever_the_default() {
    for (default, expected) in [
        ("off", "on"),
        ("remote_apply", "remote_apply"),
        ("local", "local"),
    ] {
        let url = place().await;
        let database = url.rsplit('/').next().unwrap();
        let sql = format!("ALTER DATABASE {database} SET synchronous_commit = '{default}'");
        run(&mut outsider(&url).await, &sql).await;
        let store = open(&url).await;
        let mut connection = store.rest.connection().await.unwrap();
        let mut transaction = store.begin.write(&mut connection.inner).await.unwrap();
        let show = "SHOW synchronous_commit";
        assert_eq!(text(&mut transaction, show).await, expected);
        // Whoever gets the session afterwards finds it as it was.
        transaction.commit().await.unwrap();
        assert_eq!(text(&mut connection.inner, show).await, default);
    }
}

/// Goal: a server that has become a standby is no reason to fail for good.
#[tokio::test]
async fn a_server_that_only_reads_is_unavailable() {
    let url = place().await;
    let store = open(&url).await;
    let worker = join(&store, "w").await;
    let mut raw = outsider(&url).await;
    let database = url.rsplit('/').next().unwrap();
    let sql = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    run(&mut raw, &sql).await;
    store.pulse.forget();
    let error = store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("primary"), "{error}");
    let sql = format!(
        "SET default_transaction_read_only = off; ALTER DATABASE {database} RESET default_transaction_read_only"
    );
    run(&mut raw, &sql).await;
    store
        .heartbeat(APP, &worker, &Loads::new(), &[])
        .await
        .unwrap();
}
