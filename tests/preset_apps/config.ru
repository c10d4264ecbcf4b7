# A Rack application: says who asks and who answers, as JSON. Its start takes BOOT_DELAY seconds.
require 'json'

sleep ENV.fetch('BOOT_DELAY', '0').to_f

run lambda { |env|
  facts = { pid: Process.pid, parent: Process.ppid, client: env['HTTP_X_FORWARDED_FOR'], scheme: env['rack.url_scheme'], body: env['rack.input'].read }
  [200, { 'content-type' => 'application/json' }, [JSON.generate(facts)]]
}
