import ca.uhn.hl7v2.DefaultHapiContext;
import ca.uhn.hl7v2.HL7Exception;
import ca.uhn.hl7v2.app.HL7Service;
import ca.uhn.hl7v2.llp.MinLowerLayerProtocol;
import ca.uhn.hl7v2.model.Message;
import ca.uhn.hl7v2.parser.CanonicalModelClassFactory;
import ca.uhn.hl7v2.protocol.ReceivingApplication;
import ca.uhn.hl7v2.util.Terser;
import ca.uhn.hl7v2.validation.impl.ValidationContextFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;

/** Receiver PORT FILE [mute]: takes ORU^R01 that HAPI's rules for 2.5 find valid and answers each. What it has taken
 *  stands in FILE, a line each: MSH-10, PID-3-1, OBR-25, OBX-5 of the first. A mute one never answers. */
public class Receiver {
  public static void main(String[] a) throws Exception {
    Path file = Path.of(a[1]);
    boolean mute = a.length > 2;
    DefaultHapiContext context = new DefaultHapiContext();
    context.setLowerLayerProtocol(new MinLowerLayerProtocol(true)); // MSH-18 decides the character set
    context.setValidationContext(ValidationContextFactory.defaultValidation());
    context.setModelClassFactory(new CanonicalModelClassFactory("2.5"));
    HL7Service service = context.newServer(Integer.parseInt(a[0]), false);
    service.registerApplication("ORU", "R01", new ReceivingApplication<Message>() {
      public boolean canProcess(Message m) { return true; }

      public Message processMessage(Message m, Map<String, Object> about) throws HL7Exception {
        Terser t = new Terser(m);
        String line = String.join("\t", t.get("/MSH-10"), t.get("/.PID-3-1"), t.get("/.OBR-25"), t.get("/.OBX-5"));
        try {
          Files.writeString(file, line + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
          while (mute) Thread.sleep(1000);
          return m.generateACK();
        } catch (Exception e) {
          throw new HL7Exception(e);
        }
      }
    });
    service.startAndWait();
  }
}
