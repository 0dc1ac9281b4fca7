//! Proxies that the environment names.

use tintype_test_hub::TestProxy;

use crate::child;
use crate::support::{REPOSITORY, Scene, address, file};

#[test]
fn a_proxy_is_used_unless_the_host_is_excepted() {
    let scene = Scene::new();
    let proxy = TestProxy::start();
    for path in ["first.bin", "second.bin"] {
        scene.hub.put_large(REPOSITORY, path, path.as_bytes());
    }
    for variable in ["HTTPS_PROXY", "ALL_PROXY"] {
        let before = proxy.targets().len();
        let mut command = child::command(&scene, &address("first.bin"));
        command.env_remove("NO_PROXY").env(variable, proxy.address());
        let (is_fetched, said) = child::told(&command.output().expect("it starts"));
        assert!(is_fetched, "{said}");
        let hosts = [scene.hub.endpoint(), scene.hub.cdn()].map(|url| url.replace("http://", ""));
        assert_eq!(proxy.targets()[before..], hosts);
        scene.downloader().remove(&file(&address("first.bin"))).expect("it is removed");
    }
    let before = proxy.targets().len();
    let mut command = child::command(&scene, &address("second.bin"));
    command.env("NO_PROXY", "localhost,127.0.0.1").env("HTTPS_PROXY", proxy.address());
    let (is_fetched, said) = child::told(&command.output().expect("it starts"));
    assert!(is_fetched, "{said}");
    assert_eq!(proxy.targets().len(), before);
}
