//! Four tests of one body, one for each client.

/// Makes four tests of each function named: `NAME::http1`, `NAME::http1_tls`, `NAME::h2c` and `NAME::h2_tls`. The functions stand
/// below as ordinary ones, `async fn NAME(kind: Kind)`; one that is not named is dead code, which the lints refuse.
#[macro_export]
macro_rules! every_client {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use $crate::client::Kind;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn http1() {
                super::$name(Kind::Http1).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn http1_tls() {
                super::$name(Kind::Http1Tls).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn h2c() {
                super::$name(Kind::H2c).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn h2_tls() {
                super::$name(Kind::H2Tls).await;
            }
        }
    )+};
}
