import ca.uhn.hl7v2.DefaultHapiContext;
import ca.uhn.hl7v2.app.Connection;
import ca.uhn.hl7v2.llp.MinLowerLayerProtocol;
import ca.uhn.hl7v2.model.Message;
import ca.uhn.hl7v2.util.Terser;
import ca.uhn.hl7v2.validation.impl.ValidationContextFactory;
import java.nio.file.Files;
import java.nio.file.Path;

/** Sender PORT FILE...: sends each file's message over one connection to 127.0.0.1, checked by HAPI's rules for its
 *  version first, and prints for each what the acknowledgement, parsed by them too, says: MSA-1, MSA-2, ERR-3. */
public class Sender {
  public static void main(String[] a) throws Exception {
    try (DefaultHapiContext context = new DefaultHapiContext()) {
      context.setLowerLayerProtocol(new MinLowerLayerProtocol(true)); // MSH-18 decides the character set
      context.setValidationContext(ValidationContextFactory.defaultValidation());
      Connection connection = context.newClient("127.0.0.1", Integer.parseInt(a[0]), false);
      for (int i = 1; i < a.length; i++) {
        Message sent = context.getPipeParser().parse(Files.readString(Path.of(a[i])));
        Message answer = connection.getInitiator().sendAndReceive(sent);
        Terser said = new Terser(answer);
        String error = answer.getNames().length > 2 && answer.encode().contains("\rERR") ? said.get("/ERR-3-1") : "";
        System.out.println(said.get("/MSA-1") + " " + said.get("/MSA-2") + " " + error);
      }
      connection.close();
    }
    System.exit(0);
  }
}
