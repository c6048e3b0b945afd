//! K1: one holder of the current token, and no way around it.

use super::*;

pub(super) async fn k1_fenced_a_take_ends_every_earlier_token(stores: Stores) {
    let first = holder(&stores.one, "w1", &["a"]).await;
    let taken = lease(&stores.one, "a").await;
    assert_eq!(
        (taken.counter, taken.owner_switches, taken.owner.as_deref()),
        (1, 1, Some("w1"))
    );
    let old = token(&taken);
    let observed = heartbeat_of(&stores.other, "w1").await;

    let second = join(&stores.other, "w2").await;
    let claims = [expired_claim("a", 1, "w1", observed)];
    let won = stores.other.take(APP, &second, &claims).await.unwrap();
    assert_eq!((won[0].counter, won[0].owner_switches), (2, 2));

    assert_eq!(
        kind(stores.one.checkpoint(APP, &old, &at(5)).await),
        ErrorKind::LeaseLost
    );
    assert_eq!(
        kind(stores.one.end_shard(APP, &old, &[]).await),
        ErrorKind::LeaseLost
    );
    assert_eq!(
        stores
            .one
            .release(APP, &[give_up(&old, Some(at(5)), None)])
            .await
            .unwrap(),
        0
    );
    assert_eq!(lease(&stores.one, "a").await, won[0]);
    // The same owner with a later counter is another tenure, too.
    stores
        .other
        .release(APP, &[give_up(&token(&won[0]), None, None)])
        .await
        .unwrap();
    let back = stores
        .one
        .take(APP, &first, &[claim("a", 3)])
        .await
        .unwrap();
    assert_eq!(back[0].counter, 4);
    assert_eq!(
        kind(stores.one.checkpoint(APP, &old, &at(5)).await),
        ErrorKind::LeaseLost
    );
    stores
        .one
        .checkpoint(APP, &token(&back[0]), &at(5))
        .await
        .unwrap();
}

pub(super) async fn k1_fenced_of_two_claims_one_wins(stores: Stores) {
    stores
        .one
        .create_leases(APP, &[new_lease("a", &[])])
        .await
        .unwrap();
    let first = join(&stores.one, "w1").await;
    let second = join(&stores.other, "w2").await;
    let claims = [claim("a", 0)];
    let (one, two) = tokio::join!(
        stores.one.take(APP, &first, &claims),
        stores.other.take(APP, &second, &claims)
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.len() + two.len(), 1);
    assert_eq!(
        lease(&stores.one, "a").await,
        one.into_iter().chain(two).next().unwrap()
    );
    // Naming a free lease expired, or a held one free, is not what there is to see.
    let wrong = [claim("a", 1), expired_claim("a", 1, "w3", None)];
    assert_eq!(stores.one.take(APP, &first, &wrong).await.unwrap(), []);
}

pub(super) async fn k1_fenced_an_owner_that_moved_its_heartbeat_keeps_its_lease(stores: Stores) {
    let alive = holder(&stores.one, "w1", &["a"]).await;
    let thief = join(&stores.other, "w2").await;
    let observed = heartbeat_of(&stores.other, "w1").await;
    stores
        .one
        .heartbeat(APP, &alive, &Loads::new(), &[])
        .await
        .unwrap();

    let stale = [
        expired_claim("a", 1, "w1", observed),
        expired_claim("a", 1, "w1", None),
    ];
    assert_eq!(stores.other.take(APP, &thief, &stale).await.unwrap(), []);
    let moved = heartbeat_of(&stores.other, "w1").await;
    assert_eq!(moved, observed.map(|heartbeat| heartbeat + 1));
    let too_new = [expired_claim("a", 0, "w1", moved)];
    assert_eq!(stores.other.take(APP, &thief, &too_new).await.unwrap(), []);
    let right = [expired_claim("a", 1, "w1", moved)];
    assert_eq!(
        stores.other.take(APP, &thief, &right).await.unwrap().len(),
        1
    );
}

pub(super) async fn k1_fenced_an_owner_with_a_row_is_not_one_without(stores: Stores) {
    holder(&stores.one, "w1", &["a"]).await;
    let heir = join(&stores.other, "w2").await;
    let none = [expired_claim("a", 1, "w1", None)];
    assert_eq!(stores.other.take(APP, &heir, &none).await.unwrap(), []);
    assert_eq!(lease(&stores.one, "a").await.owner.as_deref(), Some("w1"));
}

pub(super) async fn k1_fenced_a_new_run_releases_what_the_earlier_one_held(stores: Stores) {
    let earlier = holder(&stores.one, "w1", &["a", "b"]).await;
    let held = token(&lease(&stores.one, "a").await);
    let before = heartbeat_of(&stores.one, "w1").await;
    let later = join(&stores.other, "w1").await;
    assert_ne!(earlier.incarnation, later.incarnation);
    // Observers of the earlier run see a sign of life.
    assert_ne!(heartbeat_of(&stores.one, "w1").await, before);
    for shard in ["a", "b"] {
        let free = lease(&stores.one, shard).await;
        assert_eq!(
            (free.owner, free.counter, free.owner_switches),
            (None, 2, 1)
        );
    }
    assert_eq!(
        kind(stores.one.checkpoint(APP, &held, &at(1)).await),
        ErrorKind::LeaseLost
    );
    assert_eq!(
        kind(
            stores
                .one
                .heartbeat(APP, &earlier, &Loads::new(), &[])
                .await
        ),
        ErrorKind::WorkerReplaced
    );
    stores
        .other
        .heartbeat(APP, &later, &Loads::new(), &[])
        .await
        .unwrap();
    // The replaced run goes away without harm.
    stores.one.deregister(APP, &earlier).await.unwrap();
    stores
        .other
        .heartbeat(APP, &later, &Loads::new(), &[])
        .await
        .unwrap();
}

pub(super) async fn k1_fenced_a_replaced_run_takes_and_asks_for_nothing(stores: Stores) {
    let earlier = join(&stores.one, "w1").await;
    holder(&stores.one, "w2", &["b"]).await;
    stores
        .one
        .create_leases(APP, &[new_lease("a", &[])])
        .await
        .unwrap();
    let later = join(&stores.other, "w1").await;
    let before = stores.one.snapshot(APP).await.unwrap();
    let claims = [claim("a", 0)];
    assert_eq!(
        kind(stores.one.take(APP, &earlier, &claims).await),
        ErrorKind::WorkerReplaced
    );
    let asks = [ask_for("b", 1, None)];
    assert_eq!(
        kind(stores.one.ask(APP, &earlier, &asks).await),
        ErrorKind::WorkerReplaced
    );
    assert_eq!(stores.one.snapshot(APP).await.unwrap(), before);
    assert_eq!(
        stores.other.take(APP, &later, &claims).await.unwrap().len(),
        1
    );
}
