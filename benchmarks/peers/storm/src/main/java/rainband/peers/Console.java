package rainband.peers;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import net.minidev.json.JSONObject;
import net.minidev.json.JSONValue;
import org.apache.storm.StormSubmitter;
import org.apache.storm.generated.ClusterSummary;
import org.apache.storm.generated.KillOptions;
import org.apache.storm.generated.Nimbus;
import org.apache.storm.generated.TopologySummary;
import org.apache.storm.utils.NimbusClient;
import org.apache.storm.utils.Utils;

/**
 * Nimbus by thrift for a caller that has no thrift: one JSON request per line in, one JSON answer per line
 * out. It lives as long as the cluster, so a round pays no JVM start.
 */
public final class Console {
  private final Map<String, Object> conf = Utils.readStormConfig();

  private Console() {}

  public static void main(String[] args) throws Exception {
    PrintStream answers = System.out;
    System.setOut(System.err);
    Console console = new Console();
    var requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = requests.readLine(); line != null; line = requests.readLine()) {
      Map<String, Object> answer = new HashMap<>();
      try {
        console.perform((JSONObject) JSONValue.parse(line), answer);
        answer.put("ok", true);
      } catch (Exception e) {
        answer.put("ok", false);
        answer.put("error", e.toString());
      }
      answers.println(JSONObject.toJSONString(answer));
      answers.flush();
    }
  }

  private void perform(JSONObject request, Map<String, Object> answer) throws Exception {
    String verb = request.getAsString("do");
    if (verb.equals("submit")) {
      submit(request);
      return;
    }
    try (NimbusClient client = NimbusClient.Builder.withConf(conf).build()) {
      Nimbus.Iface nimbus = client.getClient();
      switch (verb) {
        case "kill" -> {
          KillOptions options = new KillOptions();
          options.set_wait_secs(0);
          nimbus.killTopologyWithOpts(request.getAsString("name"), options);
        }
        case "cluster" -> describe(nimbus.getClusterInfo(), answer);
        default -> throw new IllegalArgumentException("no such verb: " + verb);
      }
    }
  }

  private static void submit(JSONObject request) throws Exception {
    Map<String, Object> settings = new HashMap<>((JSONObject) request.get("conf"));
    var topology = Topologies.named(request.getAsString("bench"), (Boolean) request.get("acking"),
        request.getAsString("python"));
    StormSubmitter.submitTopology(request.getAsString("name"), settings, topology);
  }

  private static void describe(ClusterSummary cluster, Map<String, Object> answer) {
    answer.put("supervisors", cluster.get_supervisors_size());
    answer.put("slots_used", cluster.get_supervisors().stream().mapToInt(s -> s.get_num_used_workers()).sum());
    Map<String, Object> topologies = new HashMap<>();
    for (TopologySummary topology : cluster.get_topologies()) {
      topologies.put(topology.get_name(), topology.get_status());
    }
    answer.put("topologies", topologies);
  }
}
